use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use crate::text::{quote, serde_by_text};

/// Longest petname in characters.
const MAX_NAME_CHARS: usize = 64;
/// Longest group name in characters.
const MAX_GROUP_CHARS: usize = 32;

/// Why a text is no name for a contact or a group.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// Empty, or longer than 64 characters.
    #[error("a name has 1 to 64 characters, not {0}")]
    Length(usize),
    /// A character that cannot be seen, or that turns text around.
    #[error("the name '{0}' holds a control character or one that cannot be seen")]
    Invisible(String),
    /// White space at the start or the end.
    #[error("the name '{0}' starts or ends with a blank")]
    Blank(String),
    /// A `/`, which separates names from paths.
    #[error("the name '{0}' holds a '/'")]
    Slash(String),
    /// A `-` at the start, which looks like an option.
    #[error("the name '{0}' starts with '-'")]
    Dash(String),
    /// `ni:` at the start, which is a name already.
    #[error("'{0}' is a fingerprint, not a name of yours for it")]
    Fingerprint(String),
    /// Not a group name.
    #[error("'{0}' is not a group name: 1 to 32 of a-z, 0-9 and '-', not starting with '-'")]
    Group(String),
}

/// A person's own name for a contact: 1 to 64 characters, none of them a control character, invisible or `/`; no
/// `-` or `ni:` at the start, no blank at either end. Case is kept.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Petname(String);

impl Petname {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The form under which names clash: `Alice` and `alice` are one.
    pub(super) fn folded(&self) -> String {
        fold(&self.0)
    }
}

pub(super) fn fold(name: &str) -> String {
    name.to_lowercase()
}

impl FromStr for Petname {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let chars = text.chars().take(MAX_NAME_CHARS + 1).count();
        if !(1..=MAX_NAME_CHARS).contains(&chars) {
            return Err(NameError::Length(text.chars().count()));
        }
        let quoted = || quote(text);
        match text {
            _ if text.chars().any(is_unseen) => Err(NameError::Invisible(quoted())),
            _ if text.trim() != text => Err(NameError::Blank(quoted())),
            _ if text.contains('/') => Err(NameError::Slash(quoted())),
            _ if text.starts_with('-') => Err(NameError::Dash(quoted())),
            _ if text.get(..3).is_some_and(|start| start.eq_ignore_ascii_case("ni:")) => {
                Err(NameError::Fingerprint(quoted()))
            }
            _ => Ok(Petname(text.to_owned())),
        }
    }
}

/// Control characters, and the ones that hide or reorder others on a screen.
fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// A group of contacts: 1 to 32 of `a`–`z`, `0`–`9` and `-`, not starting with `-`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Group(String);

impl Group {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Group {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let sound = (1..=MAX_GROUP_CHARS).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
            && !text.starts_with('-');
        if sound { Ok(Group(text.to_owned())) } else { Err(NameError::Group(quote(text))) }
    }
}

macro_rules! shown_as_text {
    ($($name:ident),+) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    )+};
}

shown_as_text!(Petname, Group);
serde_by_text!(Petname, Group);
