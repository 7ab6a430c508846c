//! Man pages, one for each command, from its definition and its entry in the table.

use std::io;

use clap::Command;
use clap_mangen::Man;
use roff::{Inline, Roff, bold, roman};

use super::{ENVIRONMENT, exits, page, walk};

/// One man page.
pub(crate) struct ManPage {
    /// The words after `kith`; empty for the program itself.
    pub(crate) command: String,
    /// Name of its file: `kith-contact-add.1`.
    pub(crate) file: String,
    /// Its source, for `man -l`.
    pub(crate) roff: String,
}

/// The pages of all commands, the program's own first.
pub(crate) fn pages() -> io::Result<Vec<ManPage>> {
    let mut whole = super::command();
    whole.build();
    let mut pages = Vec::new();
    let mut failed = None;
    walk(&whole, "", &mut |path, command| match render(path, command) {
        Ok(page) => pages.push(page),
        Err(error) => failed = Some(error),
    });
    failed.map_or(Ok(pages), Err)
}

/// `kith-contact-add` for `contact add`.
fn title(path: &str) -> String {
    if path.is_empty() { "kith".to_owned() } else { format!("kith-{}", path.replace(' ', "-")) }
}

fn render(path: &str, command: &Command) -> io::Result<ManPage> {
    let title = title(path);
    let source = format!("kith {}", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command.clone().display_name(title.clone()))
        .title(title.to_uppercase())
        .source(source)
        .manual("Kithnet");
    let mut bytes = Vec::new();
    man.render_title(&mut bytes)?;
    man.render_name_section(&mut bytes)?;
    man.render_synopsis_section(&mut bytes)?;
    man.render_description_section(&mut bytes)?;
    man.render_options_section(&mut bytes)?;
    if command.get_subcommands().any(|below| below.get_name() != "help") {
        man.render_subcommands_section(&mut bytes)?;
    }
    sections(path, command).to_writer(&mut bytes)?;
    let roff = String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(ManPage { command: path.to_owned(), file: format!("{title}.1"), roff })
}

/// The sections that the command's definition does not know.
fn sections(path: &str, command: &Command) -> Roff {
    let mut roff = Roff::default();
    if let Some(page) = page(path) {
        let exits = exits(page);
        let exits: Vec<_> = exits.iter().map(|(code, meaning)| (code.to_string(), *meaning)).collect();
        list(&mut roff, "EXIT STATUS", exits.iter().map(|(code, meaning)| (code.as_str(), *meaning)));
        list(&mut roff, "FILES", page.files.iter().copied());
        list(&mut roff, "ENVIRONMENT", ENVIRONMENT.iter().copied());
        if !page.examples.is_empty() {
            roff.control("SH", ["EXAMPLES"]);
        }
        for (line, meaning) in page.examples {
            roff.control("PP", []).text([roman(format!("{meaning}:"))]);
            roff.control("RS", ["4"]).control("nf", []).text([bold(*line)]);
            roff.control("fi", []).control("RE", []);
        }
    }
    let mut others: Vec<_> = path.rmatch_indices(' ').map(|(at, _)| title(&path[..at])).collect();
    if !path.is_empty() {
        others.push(title(""));
    }
    let below = command.get_subcommands().map(clap::Command::get_name).filter(|name| *name != "help");
    others.extend(below.map(|name| title(format!("{path} {name}").trim_start())));
    let mut names = Vec::<Inline>::new();
    for other in others {
        if !names.is_empty() {
            names.push(roman(", "));
        }
        names.extend([bold(other), roman("(1)")]);
    }
    roff.control("SH", ["SEE ALSO"]).text(names);
    roff
}

fn list<'a>(roff: &mut Roff, title: &str, rows: impl Iterator<Item = (&'a str, &'a str)>) {
    let mut rows = rows.peekable();
    if rows.peek().is_none() {
        return;
    }
    roff.control("SH", [title]);
    for (name, meaning) in rows {
        roff.control("TP", []).text([bold(name)]).text([roman(meaning)]);
    }
}
