//! SPDX licence expressions: `AND`, `OR`, `WITH`, parentheses, and the old `/` for `OR`.

/// Why a text is no licence expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{expression}' is no licence expression at '{at}'")]
pub(crate) struct SpdxError {
    expression: String,
    at: String,
}

/// Can the expression be met with licences of `allowed` alone?
///
/// A licence with an exception is met where `allowed` holds both as one, `Apache-2.0 WITH LLVM-exception`.
pub(crate) fn is_met(expression: &str, allowed: &[&str]) -> Result<bool, SpdxError> {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut parser = Parser { words: &words, at: 0, allowed };
    let met = parser.any();
    if let Some(met) = met.filter(|_| parser.at == words.len()) {
        return Ok(met);
    }
    let at = words.get(parser.at).map_or("the end", |word| word);
    Err(SpdxError { expression: expression.to_owned(), at: at.to_owned() })
}

struct Parser<'a> {
    words: &'a [&'a str],
    at: usize,
    allowed: &'a [&'a str],
}

impl<'a> Parser<'a> {
    fn next_is(&mut self, word: &str) -> bool {
        let is = self.words.get(self.at).is_some_and(|next| next.eq_ignore_ascii_case(word));
        self.at += usize::from(is);
        is
    }

    fn any(&mut self) -> Option<bool> {
        let mut met = self.all()?;
        while self.next_is("OR") {
            met |= self.all()?;
        }
        Some(met)
    }

    fn all(&mut self) -> Option<bool> {
        let mut met = self.one()?;
        while self.next_is("AND") {
            met &= self.one()?;
        }
        Some(met)
    }

    fn one(&mut self) -> Option<bool> {
        if self.next_is("(") {
            let met = self.any()?;
            return self.next_is(")").then_some(met);
        }
        let name = self.name()?;
        if self.next_is("WITH") {
            let whole = format!("{name} WITH {}", self.name()?);
            return Some(self.allowed.contains(&whole.as_str()));
        }
        Some(self.allowed.contains(&name))
    }

    fn name(&mut self) -> Option<&'a str> {
        let name = *self.words.get(self.at)?;
        let sign = ["AND", "OR", "WITH"].iter().any(|sign| name.eq_ignore_ascii_case(sign));
        let plain = |c: char| c.is_ascii_alphanumeric() || "-.+:".contains(c);
        if sign || !name.chars().all(plain) {
            return None;
        }
        self.at += 1;
        Some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWED: &[&str] = &["MIT", "Apache-2.0", "ISC", "Apache-2.0 WITH LLVM-exception"];

    #[test]
    fn expressions_are_met_as_they_read() {
        for (expression, met) in [
            ("MIT", true),
            ("GPL-3.0-only", false),
            ("GPL-3.0-only OR MIT", true),
            ("GPL-3.0-only AND MIT", false),
            ("MIT/Apache-2.0", true),
            ("LGPL-2.1-or-later OR MIT AND ISC", true),
            ("(LGPL-2.1-or-later OR MIT) AND GPL-2.0", false),
            ("ISC AND (Apache-2.0 OR OpenSSL) AND (MIT)", true),
            ("Apache-2.0 WITH LLVM-exception", true),
            ("MIT WITH LLVM-exception", false),
            ("Apache-2.0 WITH LLVM-exception AND GPL-2.0", false),
            ("GPL-2.0+", false),
        ] {
            assert_eq!(is_met(expression, ALLOWED), Ok(met), "{expression}");
        }
    }

    #[test]
    fn broken_expressions_are_refused() {
        for broken in ["", "MIT OR", "OR MIT", "(MIT", "MIT)", "MIT ISC", "MIT WITH", "MIT, ISC", "AND"] {
            assert!(is_met(broken, ALLOWED).is_err(), "{broken}");
        }
        let error = is_met("MIT ISC", ALLOWED).unwrap_err();
        assert_eq!(error.to_string(), "'MIT ISC' is no licence expression at 'ISC'");
    }
}
