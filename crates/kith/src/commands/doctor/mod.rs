//! `kith doctor`: looks at everything that a node needs, changes nothing, and says what to do.

mod home;
mod network;
mod zone;

use kith_identity::{Identity, Ni};
use kith_store::Home;
use serde::Serialize;

use super::Context;
use crate::api::client::Control;
use crate::api::shapes::Status;
use crate::config::Config;
use crate::failure::{Failure, Result};
use crate::output::printable;

/// How something was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    /// It works, and somebody should know this.
    Warn,
    /// Something does not work because of this.
    Fail,
}

/// One line of the report.
#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    verdict: Verdict,
    /// What was found.
    says: String,
    /// What to do about it.
    #[serde(rename = "do", skip_serializing_if = "Option::is_none")]
    todo: Option<String>,
}

/// What was found so far.
#[derive(Debug, Default, Serialize)]
struct Report {
    checks: Vec<Finding>,
}

impl Report {
    fn ok(&mut self, check: &'static str, says: impl Into<String>) {
        self.checks.push(Finding { check, verdict: Verdict::Ok, says: says.into(), todo: None });
    }

    fn warn(&mut self, check: &'static str, says: impl Into<String>, todo: impl Into<String>) {
        let todo = Some(todo.into());
        self.checks.push(Finding { check, verdict: Verdict::Warn, says: says.into(), todo });
    }

    fn fail(&mut self, check: &'static str, says: impl Into<String>, todo: impl Into<String>) {
        let todo = Some(todo.into());
        self.checks.push(Finding { check, verdict: Verdict::Fail, says: says.into(), todo });
    }

    fn failed(&self) -> usize {
        self.checks.iter().filter(|finding| finding.verdict == Verdict::Fail).count()
    }

    fn text(&self) -> String {
        let mut lines = Vec::new();
        for finding in &self.checks {
            let verdict = match finding.verdict {
                Verdict::Ok => "ok  ",
                Verdict::Warn => "warn",
                Verdict::Fail => "FAIL",
            };
            lines.push(format!("{verdict}  {:13}  {}", finding.check, printable(&finding.says)));
            lines.extend(finding.todo.iter().map(|todo| format!("{:21}-> {}", "", printable(todo))));
        }
        lines.join("\n")
    }
}

/// Who is looked at.
struct Patient<'a> {
    home: &'a Home,
    config: Config,
    /// Missing where there is no identity, or it cannot be read without its owner.
    identity: Option<Identity>,
    /// What the node says; missing where none runs.
    status: Option<Status>,
}

impl Patient<'_> {
    fn ni(&self, authority: &kith_identity::Authority) -> Option<Ni> {
        self.identity.as_ref().map(|identity| Ni::new(identity.fingerprint(), Some(authority.clone())))
    }
}

pub(super) async fn doctor(context: &Context) -> Result<()> {
    let mut report = Report::default();
    let status = status(context).await;
    home::folder(&mut report, &context.home);
    let config = home::configuration(&mut report, &context.home);
    let identity = home::identity(&mut report, &context.home, &config);
    let patient = Patient { home: &context.home, config, identity, status };
    home::node(&mut report, &patient, &context.socket());
    home::databases(&mut report, &patient);
    home::disk(&mut report, &context.home);
    home::clock(&mut report, &context.home);
    network::listeners(&mut report, &patient);
    network::addresses(&mut report, &patient);
    network::lan(&mut report, &patient);
    network::mapping(&mut report, &patient);
    network::buffers(&mut report);
    zone::served(&mut report, &patient);
    zone::directories(&mut report, &patient).await;
    context.out.result(&report, || report.text())?;
    match report.failed() {
        0 => Ok(()),
        1 => Err(Failure::failed("one check failed").told()),
        failed => Err(Failure::failed(format!("{failed} checks failed")).told()),
    }
}

async fn status(context: &Context) -> Option<Status> {
    let mut control = Control::connect(&context.socket()).await?;
    let patience = std::time::Duration::from_secs(5);
    tokio::time::timeout(patience, control.read("/v1/status")).await.ok()?.ok()
}
