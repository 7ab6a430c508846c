//! `kith send` and `kith receive`: the node moves the files, the command watches.

use std::io::{BufRead, IsTerminal, Write};
use std::path::Path;

use hyper::Method;
use serde_json::Value;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::{Context, path_text, ping::via};
use crate::api::client::{Control, Lines};
use crate::api::shapes::{Acceptance, NewReceiver, NewTransfer, Started, State, Transfer};
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
    let request = NewTransfer {
        to: options.to.unwrap_or_default(),
        paths: options.paths.iter().map(|path| path_text(path)).collect::<Result<_>>()?,
        via: via(options.via),
        wait_ms: options.wait.as_millis(),
    };
    let mut node = context.node().await?;
    let mut interrupt = interrupt()?;
    let started: Started = node.call(Method::POST, "/v1/transfers", Some(&request)).await?;
    if started.attached {
        context.out.aside("the same transfer is under way already; showing it");
    }
    let events =
        node.lines(Method::GET, &format!("/v1/transfers/{}/events", started.id), None::<&()>).await?;
    let end = tokio::select! {
        end = watch(events, context.out.progress()) => end?,
        _ = interrupt.recv() => return cancel(context, &started.id).await,
    };
    finish(context, &end)
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
        match (finish(context, &end), options.keep) {
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
    let mut progress = context.out.progress();
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
    })?;
    if transfer.failed_files > 0 {
        let failure = Failure::failed(format!("{} did not go over", file_count(transfer.failed_files)));
        return Err(failure.told());
    }
    Ok(())
}
