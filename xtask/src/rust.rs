//! Just enough of Rust's grammar to look at code without its comments and strings.

/// A word or a punctuation mark of the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    pub(crate) text: &'a str,
    /// Line, counted from 1.
    pub(crate) line: usize,
}

/// A function with a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Function<'a> {
    pub(crate) name: &'a str,
    /// Line of the word `fn`.
    pub(crate) first: usize,
    /// Line of the closing brace.
    pub(crate) last: usize,
}

/// The code of `text` as tokens; comments, strings, characters and lifetimes are left out.
pub(crate) fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    let mut lexer = Lexer { rest: text, line: 1 };
    while let Some(first) = lexer.rest.chars().next() {
        let (rest, line) = (lexer.rest, lexer.line);
        if rest.starts_with("//") {
            lexer.skip(rest.find('\n').unwrap_or(rest.len()));
        } else if rest.starts_with("/*") {
            lexer.skip(block_comment(rest));
        } else if let Some(length) = literal(rest) {
            lexer.skip(length);
        } else if is_word(first) {
            let length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            found.push(Token { text: &rest[..length], line });
            lexer.skip(length);
        } else {
            if !first.is_whitespace() {
                found.push(Token { text: &rest[..first.len_utf8()], line });
            }
            lexer.skip(first.len_utf8());
        }
    }
    found
}

struct Lexer<'a> {
    rest: &'a str,
    line: usize,
}

impl Lexer<'_> {
    fn skip(&mut self, length: usize) {
        let (gone, rest) = self.rest.split_at(length);
        self.line += gone.matches('\n').count();
        self.rest = rest;
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0usize, 0);
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest[at..].starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

/// Length of the string, character or lifetime at the front, where there is one.
fn literal(rest: &str) -> Option<usize> {
    for prefix in ["", "b", "c"] {
        if let Some(after) = rest.strip_prefix(prefix).filter(|after| after.starts_with('"')) {
            return Some(prefix.len() + 1 + quoted(&after[1..], '"'));
        }
    }
    for prefix in ["r", "br", "cr"] {
        if let Some(length) = rest.strip_prefix(prefix).and_then(raw_string) {
            return Some(prefix.len() + length);
        }
    }
    let (prefix, after) = match rest.strip_prefix('b').filter(|after| after.starts_with('\'')) {
        Some(after) => (1, after),
        None => (0, rest),
    };
    let inside = after.strip_prefix('\'')?;
    let mut chars = inside.chars();
    let (first, second) = (chars.next()?, chars.next());
    if first == '\\' || second == Some('\'') {
        return Some(prefix + 1 + quoted(inside, '\''));
    }
    Some(prefix + 1 + inside.find(|c| !is_word(c)).unwrap_or(inside.len()))
}

/// Length up to and with the closing quote.
fn quoted(inside: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in inside.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + 1,
            _ => {}
        }
    }
    inside.len()
}

fn raw_string(rest: &str) -> Option<usize> {
    let hashes = rest.len() - rest.trim_start_matches('#').len();
    let inside = rest[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    Some(hashes + 1 + inside.find(&end).map_or(inside.len(), |at| at + end.len()))
}

/// Do the tokens from `at` on spell `words`?
pub(crate) fn spells(tokens: &[Token<'_>], at: usize, words: &[&str]) -> bool {
    tokens.get(at..at + words.len()).is_some_and(|found| found.iter().zip(words).all(|(t, w)| t.text == *w))
}

/// The functions with a body, nested ones too.
pub(crate) fn functions<'a>(tokens: &[Token<'a>]) -> Vec<Function<'a>> {
    let mut found = Vec::new();
    for (at, pair) in tokens.windows(2).enumerate() {
        let named = pair[1].text.starts_with(|c: char| c.is_alphabetic() || c == '_');
        if pair[0].text == "fn"
            && named
            && let Some(last) = body_end(&tokens[at + 2..])
        {
            found.push(Function { name: pair[1].text, first: pair[0].line, last });
        }
    }
    found
}

/// Line of the brace that closes the body whose signature starts here; `None` for a function without a body.
fn body_end(tokens: &[Token<'_>]) -> Option<usize> {
    let (mut round, mut braces) = (0usize, 0usize);
    for token in tokens {
        match token.text {
            "(" | "[" if braces == 0 => round += 1,
            ")" | "]" if braces == 0 => round = round.saturating_sub(1),
            ";" if braces == 0 && round == 0 => return None,
            "{" if round == 0 => braces += 1,
            "}" if round == 0 => {
                braces = braces.checked_sub(1)?;
                if braces == 0 {
                    return Some(token.line);
                }
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<&str> {
        tokens(text).iter().map(|token| token.text).collect()
    }

    #[test]
    fn comments_strings_characters_and_lifetimes_are_no_code() {
        let text =
            "let a /* b /* c */ d */ = \"e \\\" f\"; // g\n'h' '\\'' &'i j b'k' b\"l\" r#\"m \" n\"# é";
        assert_eq!(words(text), ["let", "a", "=", ";", "&", "j", "é"]);
    }

    #[test]
    fn lines_are_counted_through_comments_and_strings() {
        let found = tokens("/*\n\n*/ a \"\n\" b\nc");
        assert_eq!(
            found.iter().map(|t| (t.text, t.line)).collect::<Vec<_>>(),
            [("a", 3), ("b", 4), ("c", 5)]
        );
    }

    #[test]
    fn unfinished_text_ends_quietly() {
        for text in ["\"a", "/* a", "r#\"a", "'", "'a", "b'", "fn", "fn a(", "fn a() {"] {
            assert!(functions(&tokens(text)).is_empty(), "{text}");
        }
    }

    #[test]
    fn functions_are_measured_from_their_name_to_their_brace() {
        let text = "trait T {\n fn a(&self);\n fn b(x: [u8; 2]) -> u8 {\n  { 1 }\n }\n}\nlet f: fn(u8) = c;\nfn d() {}";
        let found = functions(&tokens(text));
        let found: Vec<_> = found.iter().map(|f| (f.name, f.first, f.last)).collect();
        assert_eq!(found, [("b", 3, 5), ("d", 8, 8)]);
    }
}
