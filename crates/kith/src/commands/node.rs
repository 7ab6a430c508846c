//! `kith up`, `down`, `status`, `announce`.

use std::process::Stdio;
use std::time::Duration;

use hyper::Method;
use kith_identity::Address;
use kith_sansio::{Span, system};
use serde_json::{Value, json};

use super::contact::news_of;
use super::{Context, actors, delegator, init, network};
use crate::api::client::{Control, no_node};
use crate::api::shapes::{Announced, Status, Transfer};
use crate::cli::{Init, Status as StatusOptions, Up};
use crate::config::Config;
use crate::failure::{Failure, Result};
use crate::node::{Node, running};
use crate::output::{printable, way};
use crate::supervisor;

/// How long a detached node may take until it answers.
const DETACHED_START: Duration = Duration::from_secs(120);

pub(super) async fn up(context: &Context, options: &Up) -> Result<()> {
    if options.detach {
        return detach(context, options).await;
    }
    if !context.home.exists() {
        init::make(context, &Init::default())?;
        context.out.note(format!("made an identity in {}", context.home.dir().display()));
    }
    let config = Config::load(&context.home)?;
    run(context, config, &options.listen).await
}

/// Runs the node until it is told to stop; listens at `listen` where that says something.
pub(super) async fn run(context: &Context, mut config: Config, listen: &[String]) -> Result<()> {
    if !listen.is_empty() {
        config.listen = listen.iter().map(|text| listen_address(text)).collect::<Result<_>>()?;
    }
    let stop = running::stop_signal()?;
    let node = Node::start(&context.home, config).await?;
    introduce(context, &node.status());
    supervisor::ready(&format!("listening on {}", node.status().listen.join(" ")));
    running::until_stopped(node, stop).await;
    context.out.note("stopped");
    Ok(())
}

fn listen_address(text: &str) -> Result<Address> {
    text.parse().map_err(|error| {
        Failure::usage(format!("cannot listen on '{text}': {error}"))
            .hint("write quic://127.0.0.1:7117 or tcp://[::]:7117; port 0 takes any free port")
    })
}

/// What a person wants to see once the node is up.
fn introduce(context: &Context, status: &Status) {
    if context.out.is_json() {
        let _the_node_is_up_all_the_same = context.out.result(status, String::new);
        return;
    }
    let out = context.out;
    out.note(format!("fingerprint  {}", status.fingerprint));
    out.note(format!("listening    {}", status.listen.join(" ")));
    if !status.addresses.is_empty() {
        out.note(format!("reached at   {}", status.addresses.join(" ")));
    }
    for note in &status.notes {
        out.note(format!("note         {note}"));
    }
    delegator::status_lines(status).iter().for_each(|line| out.note(line));
    network::status_lines(status).iter().for_each(|line| out.note(line));
    match status.announced.as_slice() {
        [] => out.note(
            "zone         none; contacts reach this node by address hints (kith contact add … --at …),\n             \
             or through a zone: name one in kith.toml (authorities = [\"example.org\"])",
        ),
        zones => {
            let names: Vec<_> = zones.iter().map(|zone| zone.authority.as_str()).collect();
            out.note(format!("zone         {}", names.join(" ")));
        }
    }
    out.note("ready; Ctrl-C or 'kith down' stops it");
}

/// Starts this program again in a session of its own and waits until it answers.
async fn detach(context: &Context, options: &Up) -> Result<()> {
    if Control::connect(&context.socket()).await.is_some() {
        return Err(Failure::failed(format!(
            "a node is running on {} already",
            context.home.dir().display()
        )));
    }
    let program =
        std::env::current_exe().map_err(|e| Failure::failed(format!("cannot find this program: {e}")))?;
    context.home.create().map_err(|e| Failure::failed(crate::failure::chain(&e)))?;
    let log_path = context.home.path("node.log");
    let log = std::fs::File::create(&log_path)
        .map_err(|e| Failure::failed(format!("cannot write {}: {e}", log_path.display())))?;
    let mut command = tokio::process::Command::new(program);
    // The node belongs to nobody's service then.
    command.env_remove("NOTIFY_SOCKET").env_remove("WATCHDOG_USEC");
    command.process_group(0).arg("--home").arg(context.home.dir()).arg("up");
    for listen in &options.listen {
        command.arg("--listen").arg(listen);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    let mut child = command.spawn().map_err(|e| Failure::failed(format!("cannot start the node: {e}")))?;
    let socket = context.socket();
    // As long as the child lives it is on its way: a home may be locked by a command, a key takes its time.
    let mut control = tokio::select! {
        control = answering(&socket) => control,
        ended = child.wait() => return Err(started_badly(ended, &log_path)),
        () = tokio::time::sleep(DETACHED_START) => {
            let ended = child.kill().await;
            let how = ended.map_or_else(|error| format!("cannot be ended: {error}"), |()| "was ended".to_owned());
            let last = last_error(&log_path).map_or(String::new(), |line| format!(": {line}"));
            let waited = DETACHED_START.as_secs();
            return Err(Failure::failed(format!("the node did not answer within {waited}s and {how}{last}"))
                .hint(format!("see {}", log_path.display())));
        }
    };
    let status: Status = control.read("/v1/status").await?;
    context.out.result(&status, || format!("node {} is up: {}", status.pid, status.fingerprint))?;
    Ok(())
}

/// The node behind `socket`, as soon as it answers.
async fn answering(socket: &std::path::Path) -> Control {
    loop {
        if let Some(control) = Control::connect(socket).await {
            return control;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The last failure that a node wrote into its log.
fn last_error(log: &std::path::Path) -> Option<String> {
    let said = std::fs::read(log).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    said.lines().rev().find_map(|line| line.strip_prefix("error: ")).map(str::to_owned)
}

fn started_badly(ended: std::io::Result<std::process::ExitStatus>, log: &std::path::Path) -> Failure {
    let why = last_error(log).unwrap_or_else(|| "it ended at once".to_owned());
    let how = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
    Failure::failed(format!("the node did not start: {why} ({how})"))
}

pub(super) async fn down(context: &Context) -> Result<()> {
    context.refuse_without_identity()?;
    let Some(mut control) = Control::connect(&context.socket()).await else {
        return Err(no_node(context.home.dir()));
    };
    let _: Value = control.call(Method::POST, "/v1/shutdown", None::<&()>).await?;
    // The lock is the last thing that a node lets go of.
    let deadline = system::time() + Span::secs(30);
    loop {
        match context.home.lock("down") {
            Ok(_lock) => break,
            Err(error) if system::time() >= deadline => {
                return Err(Failure::failed(format!("the node did not stop within 30s: {error}")));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    context.out.result(&json!({"stopped": true}), || "stopped".to_owned())?;
    Ok(())
}

pub(super) async fn status(context: &Context, options: &StatusOptions) -> Result<()> {
    context.refuse_without_identity()?;
    let mut control = if options.wait {
        context.node().await?
    } else {
        match Control::connect(&context.socket()).await {
            Some(control) => control,
            None => return Err(no_node(context.home.dir())),
        }
    };
    let path = if options.wait { "/v1/status?wait=true" } else { "/v1/status" };
    let status: Status = control.read(path).await?;
    context.out.result(&status, || status_text(&status))?;
    Ok(())
}

fn status_text(status: &Status) -> String {
    let mut lines = vec![
        format!("fingerprint  {}", status.fingerprint),
        format!("ready        {}", if status.ready { "yes" } else { "not yet" }),
        format!("listening    {}", status.listen.join(" ")),
        format!("control      {} (process {})", status.control, status.pid),
    ];
    lines.extend(status.notes.iter().map(|note| format!("note         {note}")));
    lines.extend(status.announced.iter().map(announced_text));
    for contact in &status.contacts {
        let transport = contact.transport.as_ref().map_or(String::new(), |t| format!(" over {t}"));
        let rtt = contact.rtt_ms.map_or(String::new(), |ms| format!(", {ms:.2} ms"));
        let way = way(&contact.path, contact.relay.as_deref());
        lines.push(format!("contact      {}: {way}{transport}{rtt}", printable(&contact.name)));
        lines.extend(news_of(contact).map(|news| format!("             {news}")));
    }
    lines.extend(delegator::status_lines(status));
    lines.extend(network::status_lines(status));
    lines.extend(actors::status_line(status));
    let running = status.floors.get("transfer").and_then(|section| section.get("running"));
    let running: Vec<Transfer> =
        running.and_then(|list| serde_json::from_value(list.clone()).ok()).unwrap_or_default();
    lines.extend(running.iter().map(|one| format!("transfer     {}", super::transfers::line(one))));
    lines.join("\n")
}

fn announced_text(announced: &Announced) -> String {
    let until = announced.until.as_ref().map_or("not announced".to_owned(), |until| format!("until {until}"));
    let error = announced.error.as_ref().map_or(String::new(), |error| format!(" ({})", printable(error)));
    format!("announced    {} {until}{error}", announced.authority)
}

pub(super) async fn announce(context: &Context) -> Result<()> {
    let mut node = context.node().await?;
    let announced: Vec<Announced> = node.call(Method::POST, "/v1/announce", None::<&()>).await?;
    let failed =
        announced.iter().find_map(|one| one.error.clone().map(|error| (one.authority.clone(), error)));
    context.out.result(&announced, || announced.iter().map(announced_text).collect::<Vec<_>>().join("\n"))?;
    match failed {
        Some((authority, error)) => {
            Err(Failure::unreachable(format!("announcing to {authority} failed: {error}")).told())
        }
        None => Ok(()),
    }
}
