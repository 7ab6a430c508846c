//! What a command says when it cannot do its work: one line, a hint, and an exit code.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Exit codes of every command (`docs/node.md`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Code {
    /// 1: tried and failed.
    Failed,
    /// 2: asked wrongly.
    Usage,
    /// 3: not found.
    NotFound,
    /// 4: not trusted.
    NotTrusted,
    /// 5: unreachable.
    Unreachable,
}

impl Code {
    pub(crate) fn exit(self) -> u8 {
        match self {
            Code::Failed => 1,
            Code::Usage => 2,
            Code::NotFound => 3,
            Code::NotTrusted => 4,
            Code::Unreachable => 5,
        }
    }
}

/// A failure as a person reads it, and as the control API carries it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    /// What failed and why, without the word "error".
    pub(crate) error: String,
    /// What to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hint: Option<String>,
    /// Which kind of failure; decides the exit code.
    pub(crate) code: Code,
    /// Whether the command's result holds it, so that it is no second document on standard output.
    #[serde(skip)]
    pub(crate) is_told: bool,
}

pub(crate) type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    pub(crate) fn new(code: Code, error: impl fmt::Display) -> Self {
        Failure { error: error.to_string(), hint: None, code, is_told: false }
    }

    pub(crate) fn failed(error: impl fmt::Display) -> Self {
        Failure::new(Code::Failed, error)
    }

    pub(crate) fn usage(error: impl fmt::Display) -> Self {
        Failure::new(Code::Usage, error)
    }

    pub(crate) fn not_found(error: impl fmt::Display) -> Self {
        Failure::new(Code::NotFound, error)
    }

    pub(crate) fn not_trusted(error: impl fmt::Display) -> Self {
        Failure::new(Code::NotTrusted, error)
    }

    pub(crate) fn unreachable(error: impl fmt::Display) -> Self {
        Failure::new(Code::Unreachable, error)
    }

    /// The same failure, which the command's result has told already.
    pub(crate) fn told(mut self) -> Self {
        self.is_told = true;
        self
    }

    /// The same failure with what to do next.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.error)
    }
}

/// An error with all its causes in one line, outermost first.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}
