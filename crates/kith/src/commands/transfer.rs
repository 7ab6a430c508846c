//! `kith send` and `kith receive`: the node moves the files, the command watches.

use std::io::{BufRead, IsTerminal};

use hyper::Method;
use serde_json::Value;

use super::{Context, path_text, ping::via};
use crate::api::client::{Control, Lines};
use crate::api::shapes::{Acceptance, NewReceiver, NewTransfer, Started, State, Transfer};
use crate::cli::{Receive, Send};
use crate::failure::{Code, Failure, Result};
use crate::output::{Progress, printable, totals};

pub(super) async fn send(context: &Context, options: Send) -> Result<()> {
    for path in &options.paths {
        if let Err(error) = std::fs::symlink_metadata(path) {
            let code =
                if error.kind() == std::io::ErrorKind::NotFound { Code::NotFound } else { Code::Failed };
            return Err(Failure::new(code, format!("cannot read {}: {error}", path.display())));
        }
    }
    let request = NewTransfer {
        to: options.to,
        paths: options.paths.iter().map(|path| path_text(path)).collect::<Result<_>>()?,
        via: via(options.via),
        wait_ms: options.wait.as_millis(),
    };
    let mut node = context.node().await?;
    let started: Started = node.call(Method::POST, "/v1/transfers", Some(&request)).await?;
    if started.attached {
        context.out.aside("the same transfer is under way already; showing it");
    }
    let events =
        node.lines(Method::GET, &format!("/v1/transfers/{}/events", started.id), None::<&()>).await?;
    let end = tokio::select! {
        end = watch(events, context.out.progress()) => end?,
        _ = tokio::signal::ctrl_c() => return cancel(context, &started.id).await,
    };
    finish(context, &end)
}

pub(super) async fn receive(context: &Context, options: Receive) -> Result<()> {
    if !options.yes && !std::io::stdin().is_terminal() {
        return Err(Failure::usage("nobody can be asked, because standard input is no terminal")
            .hint("say --yes to accept without asking"));
    }
    let request = NewReceiver {
        from: options.from,
        into: path_text(&options.into)?,
        yes: options.yes,
        overwrite: options.overwrite,
    };
    loop {
        let mut node = context.node().await?;
        let events = node.lines(Method::POST, "/v1/receivers", Some(&request)).await?;
        let end = follow(context, events, &request).await?;
        match (finish(context, &end), options.keep) {
            (outcome, false) => return outcome,
            (Err(failure), true) => context.out.failure(&failure),
            (Ok(()), true) => {}
        }
    }
}

/// Watches one receiver until a transfer of its own has ended.
async fn follow(context: &Context, mut events: Lines, request: &NewReceiver) -> Result<Transfer> {
    let mut progress = context.out.progress();
    let mut current: Option<String> = None;
    loop {
        let transfer = tokio::select! {
            event = events.next::<Transfer>() => event?,
            _ = tokio::signal::ctrl_c() => match current {
                Some(id) => return Err(cancel(context, &id).await.err().unwrap_or_else(cancelled)),
                None => return Err(cancelled()),
            },
        };
        let Some(transfer) = transfer else {
            return Err(Failure::failed("the node stopped while this command was waiting"));
        };
        if transfer.state == State::Offered && !request.yes && current.as_ref() != Some(&transfer.id) {
            current = Some(transfer.id.clone());
            let path = format!("/v1/transfers/{}", transfer.id);
            let mut node = context.node().await?;
            if ask(&transfer).await? {
                let body = Acceptance { into: request.into.clone(), overwrite: request.overwrite };
                let _: Value = node.call(Method::POST, &format!("{path}/accept"), Some(&body)).await?;
            } else {
                let _: Value = node.call(Method::DELETE, &path, None::<&()>).await?;
                current = None;
            }
            continue;
        }
        if transfer.state != State::Offered {
            current = Some(transfer.id.clone());
        }
        progress.show(&transfer);
        if transfer.state.is_final() {
            return Ok(transfer);
        }
    }
}

async fn ask(transfer: &Transfer) -> Result<bool> {
    let names: Vec<_> = transfer.paths.iter().take(5).map(|name| printable(name)).collect();
    let more = if transfer.paths.len() > names.len() { ", …" } else { "" };
    eprint!(
        "{} offers {}{more}: {} files, {}. Accept? [y/N] ",
        printable(&transfer.contact),
        names.join(", "),
        transfer.total_files,
        indicatif::HumanBytes(transfer.total_bytes)
    );
    let answer = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line).map(|_| line)
    });
    let line = answer.await.map_err(Failure::failed)?.map_err(Failure::failed)?;
    Ok(matches!(line.trim().to_lowercase().as_str(), "y" | "yes"))
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

fn cancelled() -> Failure {
    Failure::failed("cancelled")
}

/// Prints how a transfer ended; its failure is the command's.
fn finish(context: &Context, transfer: &Transfer) -> Result<()> {
    for file in &transfer.skipped {
        context.out.aside(format!("left out: {}: {}", printable(&file.path), printable(&file.reason)));
    }
    for file in &transfer.failed {
        context.out.aside(format!("not transferred: {}: {}", printable(&file.path), printable(&file.reason)));
    }
    if let Some(failure) = &transfer.failure {
        return Err(failure.clone());
    }
    context.out.result(transfer, || {
        let mut text = totals(transfer);
        if transfer.direction == "in" {
            for path in &transfer.paths {
                text.push_str("\n  ");
                text.push_str(&printable(path));
            }
        }
        text
    });
    if transfer.failed_files > 0 {
        return Err(Failure::failed(format!("{} files did not go over", transfer.failed_files)));
    }
    Ok(())
}
