//! What goes to the terminal: a person's text or a program's JSON, progress, errors.

use std::io::{self, IsTerminal, Write};

use indicatif::{HumanBytes, HumanDuration, MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::api::shapes::{State, Transfer};
use crate::failure::{Failure, Result};

/// How to speak: decided once by the global options.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    json: bool,
    quiet: bool,
}

impl Output {
    pub(crate) fn new(json: bool, quiet: bool) -> Self {
        Output { json, quiet }
    }

    /// Whether standard output belongs to a program.
    pub(crate) fn is_json(self) -> bool {
        self.json
    }

    /// The result of a command: `value` as JSON, or `text` for a person. A reader that went away is no failure, as
    /// with pipes everywhere; a disk that is full is one.
    pub(crate) fn result(self, value: &impl Serialize, text: impl FnOnce() -> String) -> Result<()> {
        self.item(value, text).map(|_somebody_reads_it| ())
    }

    /// One of several results; `false` where nobody reads them any more.
    pub(crate) fn item(self, value: &impl Serialize, text: impl FnOnce() -> String) -> Result<bool> {
        let line = if self.json { serde_json::to_string(value).map_err(Failure::failed)? } else { text() };
        arrived(print_line(line.trim_end_matches('\n')))
    }

    /// A result that is no text.
    pub(crate) fn bytes(self, bytes: &[u8]) -> Result<()> {
        let mut out = io::stdout().lock();
        arrived(out.write_all(bytes).and_then(|()| out.flush())).map(|_somebody_reads_it| ())
    }

    /// A remark for a person; on standard error where standard output is a program's.
    pub(crate) fn note(self, text: impl AsRef<str>) {
        if self.quiet {
            return;
        }
        let _nobody_reads_it = if self.json { say(text.as_ref()) } else { print_line(text.as_ref()) };
    }

    /// A remark that never belongs to the result.
    pub(crate) fn aside(self, text: impl AsRef<str>) {
        if !self.quiet {
            let _nobody_reads_it = say(text.as_ref());
        }
    }

    /// Says what failed; with `--json` as a document too.
    pub(crate) fn failure(self, failure: &Failure) {
        if self.json && !failure.is_told {
            let _the_exit_code_says_it = self.result(failure, String::new);
        }
        let _the_exit_code_says_it = say(&format!("error: {}", printable(&failure.error)));
        if let Some(hint) = &failure.hint {
            let _nobody_reads_it = say(&format!("hint: {}", printable(hint)));
        }
    }

    /// Where progress is shown: on a terminal, nowhere else.
    pub(crate) fn board(self) -> Board {
        let shown = !self.quiet && io::stderr().is_terminal();
        let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Board { bars: MultiProgress::with_draw_target(target), output: self }
    }
}

fn print_line(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush())
}

/// A line on standard error, which may be closed or full like any other file.
pub(crate) fn say(line: &str) -> io::Result<()> {
    writeln!(io::stderr().lock(), "{line}")
}

fn arrived(written: io::Result<()>) -> Result<bool> {
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::failed(format!("cannot write the result: {error}"))),
    }
}

/// Text from outside without control characters, so that a name cannot steer the terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let escaped = c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
            if escaped { c.escape_default().collect::<Vec<_>>() } else { vec![c] }
        })
        .collect()
}

/// Progress bars below each other.
pub(crate) struct Board {
    bars: MultiProgress,
    output: Output,
}

impl Board {
    /// A bar for one transfer, with a name where there are several.
    pub(crate) fn progress(&self, name: Option<String>) -> Progress {
        let bar = self.bars.add(ProgressBar::no_length());
        let form = "{prefix}{msg} [{bar:30}] {bytes}/{total_bytes} {binary_bytes_per_sec} {eta} left";
        if let Ok(style) = ProgressStyle::with_template(form) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(name.map_or(String::new(), |name| format!("{name}: ")));
        Progress { bars: self.bars.clone(), bar, output: self.output, last: None }
    }

    /// A bar for steps of equal size.
    pub(crate) fn steps(&self) -> ProgressBar {
        let bar = self.bars.add(ProgressBar::no_length());
        match ProgressStyle::with_template("[{bar:30}] {pos}/{len} {eta} left") {
            Ok(style) => bar.with_style(style.progress_chars("=> ")),
            Err(_) => bar,
        }
    }
}

/// Shows a transfer as it goes on.
pub(crate) struct Progress {
    bars: MultiProgress,
    bar: ProgressBar,
    output: Output,
    last: Option<State>,
}

impl Progress {
    /// Shows where the transfer stands.
    pub(crate) fn show(&mut self, transfer: &Transfer) {
        if self.last != Some(transfer.state) {
            self.last = Some(transfer.state);
            if let Some(text) = announcement(transfer) {
                self.bars.suspend(|| self.output.aside(text));
            }
        }
        if transfer.state == State::Moving {
            self.bar.set_length(transfer.total_bytes);
            self.bar.set_position(transfer.bytes);
            self.bar.set_message(format!("{}/{} files", transfer.files, transfer.total_files));
        }
        if transfer.state.is_final() {
            self.bar.finish_and_clear();
        }
    }
}

fn announcement(transfer: &Transfer) -> Option<String> {
    let contact = printable(&transfer.contact);
    match (transfer.state, transfer.direction.as_str()) {
        (State::Connecting, _) => Some(format!("connecting to {contact} …")),
        (State::Offered, "out") => Some(format!("offered to {contact}, waiting for acceptance …")),
        (State::Waiting, _) => {
            let why = transfer.waiting_for.as_deref().map_or(String::new(), printable);
            Some(match &transfer.until {
                Some(until) => format!("{why}; the node tries again until {until} …"),
                // Nothing that is tried: its turn comes.
                None => format!("{why} …"),
            })
        }
        (State::Paused, _) => {
            let by = match transfer.paused_by.as_deref() {
                Some("contact") => format!("by {contact}"),
                Some("both") => format!("here and by {contact}"),
                _ => format!("here; 'kith transfer resume {}' goes on", transfer.id),
            };
            Some(format!("paused {by}"))
        }
        (State::Interrupted, _) => Some(format!("connection to {contact} lost, trying again …")),
        _ => None,
    }
}

pub(crate) fn file_count(files: u64) -> String {
    if files == 1 { "1 file".to_owned() } else { format!("{files} files") }
}

/// The closing line of a transfer for a person.
pub(crate) fn totals(transfer: &Transfer) -> String {
    let verb = if transfer.direction == "out" { "sent" } else { "received" };
    let moved = transfer.bytes.saturating_sub(transfer.resumed_bytes);
    let rate = if transfer.seconds > 0.0 { moved as f64 / transfer.seconds } else { 0.0 };
    let resumed = match transfer.resumed_bytes {
        0 => String::new(),
        bytes => format!(", {} were there already", HumanBytes(bytes)),
    };
    let files = file_count(transfer.files);
    format!(
        "{verb} {files}, {} in {} ({}/s, {}{}{resumed})",
        HumanBytes(transfer.bytes),
        HumanDuration(std::time::Duration::from_secs_f64(transfer.seconds.max(0.0))),
        HumanBytes(rate as u64),
        transfer.path,
        transfer.transport.as_ref().map_or(String::new(), |t| format!(" over {t}")),
    )
}

/// How a peer is reached: `direct`, `relayed via home` or `none`.
pub(crate) fn way(path: &str, relay: Option<&str>) -> String {
    relay.map_or_else(|| path.to_owned(), |relay| format!("{path} via {}", printable(relay)))
}

#[cfg(test)]
mod tests {
    use super::{announcement, printable};
    use crate::api::shapes::{State, Transfer};
    use crate::node::transfers::blank;

    #[test]
    fn a_transfer_that_waits_says_for_what_and_until_when_where_there_is_an_end() {
        let waiting_for = Some("other transfers move first".to_owned());
        let waiting = Transfer { waiting_for, ..blank("1", "out", "south", State::Waiting) };
        assert_eq!(announcement(&waiting).unwrap(), "other transfers move first …");
        let until = Some("2026-01-31T12:00:00Z".to_owned());
        let text = announcement(&Transfer { until, ..waiting }).unwrap();
        assert_eq!(text, "other transfers move first; the node tries again until 2026-01-31T12:00:00Z …");
    }

    #[test]
    fn names_from_outside_cannot_steer_the_terminal() {
        assert_eq!(printable("a\u{1b}[31mb\nc\u{202e}d"), "a\\u{1b}[31mb\\nc\\u{202e}d");
        assert_eq!(printable("Grüße 日本"), "Grüße 日本");
    }
}
