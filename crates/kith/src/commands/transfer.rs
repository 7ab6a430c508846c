//! `kith send` and `kith receive`: the node moves the files, the command watches.

use std::io::{BufRead, IsTerminal, Write};
use std::path::Path;

use hyper::Method;
use kith_transfer::{Rate, Reason};
use serde_json::{Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::{Context, path_text, ping::via};
use crate::api::client::{Control, Lines};
use crate::api::shapes::{Acceptance, Contact, NewReceiver, NewTransfer, Started, State, Transfer};
use crate::cli::{Receive, Send};
use crate::failure::{Code, Failure, Result};
use crate::output::{Progress, file_count, printable, totals};

pub(super) async fn send(context: &Context, options: Send) -> Result<()> {
    for path in &options.paths {
        std::fs::symlink_metadata(path).map_err(|error| cannot_read(path, &error))?;
    }
    if options.invite {
        return super::invite::send(context, options).await;
    }
    let paths = options.paths.iter().map(|path| path_text(path)).collect::<Result<Vec<_>>>()?;
    let mut node = context.node().await?;
    let recipients = recipients(&mut node, &options.to).await?;
    let order = |to: &str| NewTransfer {
        to: to.to_owned(),
        paths: paths.clone(),
        via: via(options.via),
        wait_ms: options.wait.as_millis(),
        accept_ms: Some(options.accept_within.as_millis()),
        limit: options.limit.map(Rate::bytes_per_second),
    };
    let interrupt = interrupt()?;
    let mut started = Vec::new();
    for to in recipients {
        let begun: Result<Started> = node.call(Method::POST, "/v1/transfers", Some(&order(&to))).await;
        started.push((to, begun));
    }
    // One recipient that was asked for is one result; whoever asks for several reads a summary too.
    let is_one = options.to.len() == 1 && !options.to[0].starts_with('@');
    if options.detach {
        return leave(context, started, is_one);
    }
    let ends = follow_all(context, started, interrupt).await?;
    let finishing = Finishing { context, skip_unreadable: options.skip_unreadable };
    match ends.as_slice() {
        [(_, end)] if is_one => finishing.one(end.as_ref().map_err(Clone::clone)?),
        _ => finishing.all(&ends),
    }
}

/// The contacts that `--to` names, each once; `@family` are those of a group.
async fn recipients(node: &mut Control, to: &[String]) -> Result<Vec<String>> {
    let contacts: Vec<Contact> = node.read("/v1/contacts").await?;
    let mut names: Vec<String> = Vec::new();
    for text in to {
        let found: Vec<String> = match text.strip_prefix('@') {
            Some(group) => {
                let members = contacts.iter().filter(|contact| contact.groups.iter().any(|one| one == group));
                members.map(|contact| contact.name.clone()).collect()
            }
            // The node knows what a name or fingerprint means.
            None => {
                let path = format!("/v1/contacts/{}", super::escape(text));
                vec![node.read::<Contact>(&path).await?.name]
            }
        };
        if found.is_empty() {
            return Err(Failure::not_found(format!(
                "there is nobody in a group '{}'",
                printable(&text[1..])
            ))
            .hint("list the groups with 'kith contact group list'"));
        }
        for name in found {
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    Ok(names)
}

/// An order for each recipient, or why there is none.
type Orders = Vec<(String, Result<Started>)>;

/// Prints the ids, and leaves the transfers to the node.
fn leave(context: &Context, started: Orders, is_one: bool) -> Result<()> {
    let mut worst: Option<Failure> = None;
    for (contact, begun) in started {
        match begun {
            Ok(one) => {
                let line = json!({ "id": one.id, "contact": contact, "attached": one.attached });
                context.out.result(&line, || format!("{}\tto {}", one.id, printable(&contact)))?;
            }
            Err(failure) if is_one => return Err(failure),
            Err(failure) => {
                let line = json!({ "contact": contact, "failure": failure });
                name_failure(context, &contact, &failure);
                if context.out.is_json() {
                    context.out.result(&line, String::new)?;
                }
                worst = Some(worse(worst, failure));
            }
        }
    }
    worst.map_or(Ok(()), |failure| Err(failure.told()))
}

fn name_failure(context: &Context, contact: &str, failure: &Failure) {
    context.out.aside(format!("{}: {}", printable(contact), printable(&failure.error)));
}

/// Of two failures the one with the higher exit code.
fn worse(one: Option<Failure>, other: Failure) -> Failure {
    match one {
        Some(one) if one.code.exit() >= other.code.exit() => one,
        _ => other,
    }
}

/// Watches all transfers to their ends; Ctrl-C cancels them.
async fn follow_all(
    context: &Context,
    started: Orders,
    mut interrupt: Signal,
) -> Result<Vec<(String, Result<Transfer>)>> {
    let board = context.out.board();
    let several = started.len() > 1;
    let ids: Vec<String> =
        started.iter().filter_map(|(_, begun)| Some(begun.as_ref().ok()?.id.clone())).collect();
    let watching = started.into_iter().map(|(contact, begun)| {
        let progress = board.progress(several.then(|| printable(&contact)));
        async move {
            let end = async {
                let begun = begun?;
                if begun.attached {
                    context.out.aside("the same transfer is under way already; showing it");
                }
                let mut node = context.node().await?;
                let path = format!("/v1/transfers/{}/events", begun.id);
                watch(node.lines(Method::GET, &path, None::<&()>).await?, progress).await
            };
            let end = end.await;
            (contact, end)
        }
    });
    tokio::select! {
        ends = futures_util::future::join_all(watching) => Ok(ends),
        _ = interrupt.recv() => {
            for id in &ids {
                if let Err(failure) = cancel(context, id).await && failure.error != CANCELLED {
                    context.out.aside(printable(&failure.error));
                }
            }
            Err(cancelled())
        }
    }
}

fn cannot_read(path: &Path, error: &std::io::Error) -> Failure {
    let says = format!("cannot read {}: {error}", path.display());
    match (error.kind(), std::env::current_dir()) {
        (std::io::ErrorKind::NotFound, Ok(here)) => Failure::not_found(says)
            .hint(format!("check the name with 'ls'; it is looked for in {}", here.display())),
        (std::io::ErrorKind::NotFound, Err(_)) => Failure::not_found(says),
        _ => Failure::failed(says),
    }
}

pub(super) async fn receive(context: &Context, options: Receive) -> Result<()> {
    if !options.yes && !std::io::stdin().is_terminal() {
        return Err(Failure::usage("nobody can be asked, because standard input is no terminal")
            .hint("say --yes to accept without asking"));
    }
    if std::fs::metadata(&options.into).is_ok_and(|found| !found.is_dir()) {
        // Found out later, it would be the sender's failure.
        return Err(Failure::failed(format!("{} is no folder", options.into.display()))
            .hint("say with --into where the files go; a folder that is missing is made"));
    }
    let request = NewReceiver {
        from: options.from,
        into: path_text(&options.into)?,
        yes: options.yes,
        overwrite: options.overwrite,
    };
    let mut person = Person { interrupt: interrupt()?, answers: None };
    loop {
        let mut node = tokio::select! {
            node = context.node() => node?,
            _ = person.interrupt.recv() => return Err(cancelled()),
        };
        let events = node.lines(Method::POST, "/v1/receivers", Some(&request)).await?;
        let end = follow(context, events, &request, &mut person).await?;
        let finishing = Finishing { context, skip_unreadable: false };
        match (finishing.one(&end), options.keep) {
            (outcome, false) => return outcome,
            (Err(failure), true) => context.out.failure(&failure),
            (Ok(()), true) => {}
        }
    }
}

/// Ctrl-C from now on: one that is pressed while nobody listens is not lost.
pub(super) fn interrupt() -> Result<Signal> {
    signal(SignalKind::interrupt())
        .map_err(|error| Failure::failed(format!("cannot listen for Ctrl-C: {error}")))
}

/// Who sits at the terminal.
struct Person {
    interrupt: Signal,
    /// Lines from standard input, from the first question on.
    answers: Option<mpsc::Receiver<String>>,
}

impl Person {
    fn ask(&mut self, transfer: &Transfer) {
        let names: Vec<_> = transfer.paths.iter().take(5).map(|name| printable(name)).collect();
        let more = if transfer.paths.len() > names.len() { ", …" } else { "" };
        let _nobody_reads_it = write!(
            std::io::stderr().lock(),
            "{} offers {}{more}: {}, {}. Accept? [y/N] ",
            printable(&transfer.contact),
            names.join(", "),
            file_count(transfer.total_files),
            indicatif::HumanBytes(transfer.total_bytes)
        );
        self.answers.get_or_insert_with(|| {
            let (sender, answers) = mpsc::channel(1);
            // It waits for a line as long as the program runs, and keeps nothing from ending.
            std::thread::spawn(move || {
                let lines = std::io::stdin().lock().lines();
                lines.map_while(std::io::Result::ok).try_for_each(|line| sender.blocking_send(line))
            });
            answers
        });
    }

    /// Ctrl-C, or the answer where a question is open; an end of the input is a no.
    async fn says(&mut self, is_asked: bool) -> Heard {
        let answer = async {
            match &mut self.answers {
                Some(answers) if is_asked => answers.recv().await.unwrap_or_default(),
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => Heard::Interrupt,
            line = answer => Heard::Answer(matches!(line.trim().to_lowercase().as_str(), "y" | "yes")),
        }
    }
}

/// What a `receive` command hears next.
enum Heard {
    Event(Option<Box<Transfer>>),
    Answer(bool),
    Interrupt,
}

/// Watches one receiver until a transfer of its own has ended.
async fn follow(
    context: &Context,
    mut events: Lines,
    request: &NewReceiver,
    person: &mut Person,
) -> Result<Transfer> {
    let mut progress = context.out.board().progress(None);
    // The transfer that Ctrl-C cancels; whether its question was put, and whether it is still open.
    let mut current = None::<String>;
    let (mut was_asked, mut is_asked) = (false, false);
    loop {
        let heard = tokio::select! {
            event = events.next::<Transfer>() => Heard::Event(event?.map(Box::new)),
            said = person.says(is_asked) => said,
        };
        let transfer = match (heard, &current) {
            (Heard::Event(Some(transfer)), _) => transfer,
            (Heard::Event(None), _) => {
                return Err(Failure::failed("the node stopped while this command was waiting"));
            }
            (Heard::Interrupt, Some(id)) => {
                return Err(cancel(context, id).await.err().unwrap_or_else(cancelled));
            }
            (Heard::Answer(yes), Some(id)) => {
                is_asked = false;
                decide(context, id, request, yes).await?;
                continue;
            }
            (Heard::Interrupt | Heard::Answer(_), None) => return Err(cancelled()),
        };
        let is_offer = transfer.state == State::Offered;
        if is_asked && !is_offer {
            // The rest of the question's line is free for what happened to the offer.
            context.out.aside("");
        }
        let is_new = current.as_ref() != Some(&transfer.id);
        was_asked = was_asked && is_offer && !is_new;
        is_asked = is_asked && was_asked;
        current = Some(transfer.id.clone());
        if is_offer && !request.yes && !was_asked {
            (was_asked, is_asked) = (true, true);
            person.ask(&transfer);
        }
        progress.show(&transfer);
        if transfer.state.is_final() {
            return Ok(*transfer);
        }
    }
}

/// Tells the node a person's answer to an offer.
async fn decide(context: &Context, id: &str, request: &NewReceiver, yes: bool) -> Result<()> {
    let mut node = context.node().await?;
    let path = format!("/v1/transfers/{id}");
    let told: Result<Value> = if yes {
        let body = Acceptance { into: request.into.clone(), overwrite: request.overwrite };
        node.call(Method::POST, &format!("{path}/accept"), Some(&body)).await
    } else {
        node.call(Method::DELETE, &path, None::<&()>).await
    };
    match told {
        // The offer went away in this moment; its events say how.
        Err(failure) if failure.code == Code::NotFound => Ok(()),
        told => told.map(|_| ()),
    }
}

async fn watch(mut events: Lines, mut progress: Progress) -> Result<Transfer> {
    while let Some(transfer) = events.next::<Transfer>().await? {
        progress.show(&transfer);
        if transfer.state.is_final() {
            return Ok(transfer);
        }
    }
    Err(Failure::failed("the node stopped during the transfer")
        .hint("start it again with 'kith up' and repeat the command: the transfer goes on where it stopped"))
}

async fn cancel(context: &Context, id: &str) -> Result<()> {
    if let Some(mut node) = Control::connect(&context.socket()).await {
        let _: Value = node.call(Method::DELETE, &format!("/v1/transfers/{id}"), None::<&()>).await?;
    }
    Err(cancelled())
}

const CANCELLED: &str = "cancelled";

fn cancelled() -> Failure {
    Failure::failed(CANCELLED)
}

/// Prints how transfers ended.
struct Finishing<'a> {
    context: &'a Context,
    /// What could not be read is no failure.
    skip_unreadable: bool,
}

impl Finishing<'_> {
    /// Prints how a transfer ended; its failure is the command's.
    fn one(&self, transfer: &Transfer) -> Result<()> {
        self.name_files(transfer);
        if let Some(failure) = &transfer.failure {
            return Err(failure.clone());
        }
        self.context.out.result(transfer, || closing(transfer))?;
        self.shortfall(transfer).map_or(Ok(()), |failure| Err(failure.told()))
    }

    /// Prints one line for each recipient and a summary. The failure is the worst one.
    fn all(&self, ends: &[(String, Result<Transfer>)]) -> Result<()> {
        let mut failed = Vec::new();
        let mut worst: Option<Failure> = None;
        let (mut bytes, mut seconds) = (0, 0.0_f64);
        for (contact, end) in ends {
            let failure = match end {
                Ok(transfer) => {
                    self.name_files(transfer);
                    bytes += transfer.bytes;
                    seconds = seconds.max(transfer.seconds);
                    transfer.failure.clone().or_else(|| self.shortfall(transfer))
                }
                Err(failure) => Some(failure.clone()),
            };
            self.line(contact, end, failure.as_ref())?;
            if let Some(failure) = failure {
                failed.push(json!({ "contact": contact, "failure": failure }));
                worst = Some(worse(worst, failure));
            }
        }
        let succeeded = ends.len() - failed.len();
        let summary = json!({
            "done": failed.is_empty(), "recipients": ends.len(), "succeeded": succeeded, "bytes": bytes,
            "seconds": seconds, "failures": failed,
        });
        self.context.out.result(&summary, || {
            format!("sent to {succeeded} of {}, {} in all", ends.len(), indicatif::HumanBytes(bytes))
        })?;
        let Some(mut worst) = worst else { return Ok(()) };
        worst.error =
            format!("{} of {} recipients did not get all: {}", failed.len(), ends.len(), worst.error);
        Err(worst.told())
    }

    fn line(&self, contact: &str, end: &Result<Transfer>, failure: Option<&Failure>) -> Result<()> {
        let out = self.context.out;
        if let Some(failure) = failure {
            name_failure(self.context, contact, failure);
        }
        match end {
            Ok(transfer) if out.is_json() || failure.is_none() => {
                out.result(transfer, || format!("{}: {}", printable(contact), closing(transfer)))
            }
            Err(failure) if out.is_json() => {
                out.result(&json!({ "contact": contact, "failure": failure }), String::new)
            }
            _ => Ok(()),
        }
    }

    /// Names what was left out and what failed.
    fn name_files(&self, transfer: &Transfer) {
        let out = self.context.out;
        for file in &transfer.skipped {
            out.aside(format!("left out: {}: {}", printable(&file.path), printable(&file.reason)));
        }
        for file in &transfer.failed {
            out.aside(format!("not transferred: {}: {}", printable(&file.path), printable(&file.reason)));
        }
    }

    /// What is missing of a transfer that came to its end.
    fn shortfall(&self, transfer: &Transfer) -> Option<Failure> {
        let unreadable = Reason::Unreadable.to_string();
        let listed = transfer.failed.iter().filter(|file| file.reason == unreadable).count() as u64;
        let excused = if self.skip_unreadable { listed } else { 0 };
        let files = transfer.failed_files.saturating_sub(excused);
        if files > 0 {
            return Some(Failure::failed(format!("{} did not go over", file_count(files))));
        }
        if transfer.unreadable > 0 && !self.skip_unreadable {
            let text = match transfer.unreadable {
                1 => "a folder or link could not be read, and was left out".to_owned(),
                count => format!("{count} folders and links could not be read, and were left out"),
            };
            return Some(Failure::failed(text).hint("with --skip-unreadable that is no failure"));
        }
        None
    }
}

/// The closing lines of a transfer.
fn closing(transfer: &Transfer) -> String {
    let mut text = totals(transfer);
    if transfer.direction == "in" {
        for path in &transfer.paths {
            text.push_str("\n  ");
            text.push_str(&printable(path));
        }
    }
    text
}
