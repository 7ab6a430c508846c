//! `kith completions` and `kith man`: made from the command definitions.

use std::path::Path;

use serde_json::json;

use super::Context;
use crate::cli::{Completions, Man};
use crate::failure::{Failure, Result};
use crate::help::{self, man};

pub(super) fn completions(context: &Context, options: &Completions) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut help::command(), "kith", &mut script);
    if !context.out.is_json() {
        return context.out.bytes(&script);
    }
    let script = String::from_utf8(script).map_err(Failure::failed)?;
    context.out.result(&json!({ "shell": options.shell.to_string(), "script": script }), String::new)
}

pub(super) fn man(context: &Context, options: &Man) -> Result<()> {
    let pages = man::pages().map_err(|error| Failure::failed(format!("cannot make the pages: {error}")))?;
    if let Some(folder) = &options.into {
        return all(context, folder, &pages);
    }
    let path = options.command.join(" ");
    let Some(page) = pages.into_iter().find(|page| page.command == path) else {
        return Err(Failure::not_found(format!("there is no command '{path}'")).hint(
            "'kith --help' lists them; 'kith man contact add' shows the page of a command below another",
        ));
    };
    if !context.out.is_json() {
        return context.out.bytes(page.roff.as_bytes());
    }
    context.out.result(&json!({ "command": page.command, "file": page.file, "page": page.roff }), String::new)
}

fn all(context: &Context, folder: &Path, pages: &[man::ManPage]) -> Result<()> {
    let failed = |path: &Path, error| Failure::failed(format!("cannot write {}: {error}", path.display()));
    std::fs::create_dir_all(folder).map_err(|error| failed(folder, error))?;
    for page in pages {
        let path = folder.join(&page.file);
        std::fs::write(&path, &page.roff).map_err(|error| failed(&path, error))?;
    }
    let list: Vec<_> =
        pages.iter().map(|page| json!({ "command": page.command, "file": page.file })).collect();
    context.out.result(&json!({ "into": folder.display().to_string(), "pages": list }), || {
        format!("wrote {} pages into {}", pages.len(), folder.display())
    })
}
