//! The text of nginx's configuration: words, quotes, comments, blocks.

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::time::Duration;

/// What `nginx -T` writes before a file's name.
const FILE_NAME: &str = "# configuration file ";
/// Deeper than anybody includes files in files; one that includes itself ends here.
const INCLUDES_DEEP_MAX: usize = 8;

/// A directive, with the block behind it where there is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Directive {
    pub(super) name: String,
    /// What follows the name.
    pub(super) words: Vec<String>,
    pub(super) block: Option<Vec<Directive>>,
    /// Where it begins, counted from 1.
    pub(super) line: usize,
}

/// Why a text is no configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub(super) struct TextError {
    line: usize,
    what: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Open,
    Close,
    End,
}

impl Directive {
    /// The block around everything.
    pub(super) fn main(directives: Vec<Self>) -> Self {
        Self { name: "main".to_owned(), words: Vec::new(), block: Some(directives), line: 1 }
    }
}

/// Reads a file of nginx, or all of them as `nginx -T` prints them: each behind a line with its name. An `include`
/// of what is not there stays.
///
/// # Errors
/// The first [`TextError`] met, by its line in its file.
pub(super) fn read(text: &str) -> Result<Vec<Directive>, TextError> {
    let is_name = |line: &&str| line.starts_with(FILE_NAME) && line.ends_with(':');
    let mut files = Vec::new();
    let mut rest = text;
    while let Some(line) = rest.lines().find(is_name) {
        let (before, after) = rest.split_once(line).expect("the line was found in it");
        files.push(before);
        files.push(line.trim_start_matches(FILE_NAME).trim_end_matches(':'));
        rest = after;
    }
    files.push(rest);
    // What stands before the first name is the main file, where there is no name at all.
    let mut parsed = Vec::new();
    for file in files[1..].chunks(2) {
        parsed.push((file[0], parse(file[1])?));
    }
    match parsed.first() {
        None => parse(text),
        Some((_, main)) => Ok(expanded(main, &parsed, INCLUDES_DEEP_MAX)),
    }
}

/// `directives` with every `include` replaced by what the files of that name hold.
fn expanded(directives: &[Directive], files: &[(&str, Vec<Directive>)], deep: usize) -> Vec<Directive> {
    let mut expansion = Vec::new();
    for directive in directives {
        let wanted = directive.words.first().filter(|_| directive.name == "include" && deep > 0);
        let included: Vec<_> = wanted.map_or_else(Vec::new, |pattern| {
            files.iter().filter(|(file, _)| is_named(file, pattern)).collect()
        });
        for (_, included) in &included {
            expansion.extend(expanded(included, files, deep - 1));
        }
        if included.is_empty() {
            let block = directive.block.as_ref().map(|block| expanded(block, files, deep));
            expansion.push(Directive { block, ..directive.clone() });
        }
    }
    expansion
}

/// Whether a file is meant by the pattern of an `include`, which may leave out the directory of the main file.
fn is_named(file: &str, pattern: &str) -> bool {
    let tails = file.match_indices('/').map(|(at, _)| &file[at + 1..]).filter(|_| !pattern.starts_with('/'));
    tails.chain([file]).any(|file| is_match(file, pattern))
}

/// Whether a path is one of the pattern's, where `*` is anything but a `/`.
fn is_match(path: &str, pattern: &str) -> bool {
    match pattern.split_once('*') {
        None => path == pattern,
        Some((head, tail)) => path.strip_prefix(head).is_some_and(|rest| {
            let segment = rest.find('/').unwrap_or(rest.len());
            (0..=segment).filter(|at| rest.is_char_boundary(*at)).any(|at| is_match(&rest[at..], tail))
        }),
    }
}

/// Reads the text of one file.
///
/// # Errors
/// The first [`TextError`] met.
fn parse(text: &str) -> Result<Vec<Directive>, TextError> {
    let tokens = tokens(text)?;
    let mut tokens = tokens.into_iter().peekable();
    let directives = directives(&mut tokens)?;
    match tokens.next() {
        None => Ok(directives),
        Some((line, _)) => Err(TextError { line, what: "a `}` without its `{`" }),
    }
}

/// The directives up to the end of their block, which is left to be taken.
fn directives(
    tokens: &mut Peekable<impl Iterator<Item = (usize, Token)>>,
) -> Result<Vec<Directive>, TextError> {
    let mut directives = Vec::new();
    while let Some((line, token)) = tokens.next_if(|(_, token)| *token != Token::Close) {
        let Token::Word(name) = token else {
            return Err(TextError { line, what: "a directive begins with its name" });
        };
        let mut words = Vec::new();
        let block = loop {
            match tokens.next() {
                Some((_, Token::Word(word))) => words.push(word),
                Some((_, Token::End)) => break None,
                Some((line, Token::Open)) => {
                    let block = self::directives(tokens)?;
                    if tokens.next().is_none() {
                        return Err(TextError { line, what: "a `{` without its `}`" });
                    }
                    break Some(block);
                }
                Some((_, Token::Close)) | None => {
                    return Err(TextError { line, what: "a directive without its `;`" });
                }
            }
        };
        directives.push(Directive { name, words, block, line });
    }
    Ok(directives)
}

fn tokens(text: &str) -> Result<Vec<(usize, Token)>, TextError> {
    let mut tokens = Vec::new();
    let mut chars = text.chars().peekable();
    let mut line = 1;
    while let Some(char) = chars.next() {
        let begin = line;
        let token = match char {
            '\n' => {
                line += 1;
                continue;
            }
            char if char.is_whitespace() => continue,
            '#' => {
                while chars.next_if(|char| *char != '\n').is_some() {}
                continue;
            }
            ';' => Token::End,
            '{' => Token::Open,
            '}' => Token::Close,
            quote @ ('"' | '\'') => Token::Word(quoted(quote, &mut chars, &mut line)?),
            first => Token::Word(bare(first, &mut chars)),
        };
        tokens.push((begin, token));
    }
    Ok(tokens)
}

fn quoted(
    quote: char,
    chars: &mut Peekable<impl Iterator<Item = char>>,
    line: &mut usize,
) -> Result<String, TextError> {
    let begin = *line;
    let mut word = String::new();
    while let Some(char) = chars.next() {
        *line += usize::from(char == '\n');
        match char {
            '\\' => word.extend(chars.next()),
            char if char == quote => return Ok(word),
            char => word.push(char),
        }
    }
    Err(TextError { line: begin, what: "a quote that does not end" })
}

/// A word without quotes. A brace belongs to it only as part of a variable, `${name}`.
fn bare(first: char, chars: &mut Peekable<impl Iterator<Item = char>>) -> String {
    let mut word = String::from(first);
    let mut is_in_variable = false;
    let mut escapes = first == '\\';
    while let Some(char) = chars.next_if(|char| {
        escapes
            || is_in_variable
            || (*char == '{' && word.ends_with('$'))
            || !(char.is_whitespace() || ";{}".contains(*char))
    }) {
        is_in_variable = (is_in_variable || char == '{') && char != '}';
        escapes = !escapes && char == '\\';
        word.push(char);
    }
    word
}

/// The names of the variables in a text: `$name` or `${name}`.
pub(super) fn variables(text: &str) -> BTreeSet<String> {
    let name = |text: &str| {
        let text = text.strip_prefix('{').unwrap_or(text);
        text.chars().take_while(|char| char.is_ascii_alphanumeric() || *char == '_').collect()
    };
    text.split('$').skip(1).map(name).collect()
}

/// A time as nginx writes it: `90`, `90s`, `1m30s`, `500ms`, `1h`, `1d`.
pub(super) fn time(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u32 = rest[..digits].parse().ok()?;
        let unit_end = rest[digits..].bytes().take_while(u8::is_ascii_alphabetic).count() + digits;
        let unit = match &rest[digits..unit_end] {
            "ms" => Duration::from_millis(1),
            "" | "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            "h" => Duration::from_secs(3600),
            "d" => Duration::from_secs(86_400),
            _ => return None,
        };
        sum = sum.checked_add(unit.checked_mul(number)?)?;
        rest = rest[unit_end..].trim_start();
    }
    (!text.is_empty()).then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_are_words_and_blocks() {
        let text = "a 'b \\' c' \"d;\"; # e {\nlocation ~ x$ {\n f ${g}h i\\;j;\n}\n";
        let directives = parse(text).unwrap();
        let [a, location] = &directives[..] else { panic!("{directives:?}") };
        assert_eq!((a.name.as_str(), &a.words[..]), ("a", &["b ' c".to_owned(), "d;".to_owned()][..]));
        assert_eq!((location.line, &location.words[..]), (2, &["~".to_owned(), "x$".to_owned()][..]));
        assert_eq!(location.block.as_ref().unwrap()[0].words, ["${g}h", "i\\;j"]);
    }

    #[test]
    fn what_is_broken_is_named_with_its_line() {
        for (text, line) in [("a;\nb {", 2), ("a;\n}", 2), ("a\nb", 1), ("a;\n;", 2), ("a '\n", 1)] {
            assert_eq!(parse(text).unwrap_err().line, line, "{text:?}");
        }
    }

    #[test]
    fn files_are_put_where_they_are_included() {
        let text = "# configuration file /etc/nginx/nginx.conf:\nhttp { include sites/*.conf; include other; z; }\n\
            # configuration file /etc/nginx/sites/a.conf:\na;\n# configuration file /etc/nginx/sites/b.conf:\nb { c; }\n\
            # configuration file /etc/nginx/sites/not/d.conf:\nd;\n";
        let directives = read(text).unwrap();
        let [http] = &directives[..] else { panic!("{directives:?}") };
        let names: Vec<_> = http.block.iter().flatten().map(|inner| inner.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "include", "z"]);
        let endless = "# configuration file /a:\nx;\ninclude /a;\n";
        assert!(read(endless).unwrap().len() < 20);
        assert_eq!(read("a;").unwrap(), parse("a;").unwrap());
        assert_eq!(read("# configuration file /a:\na;\n# configuration file /b:\n}\n").unwrap_err().line, 2);
    }

    #[test]
    fn times_have_units() {
        for (text, seconds) in [
            ("90", 90.0),
            ("90s", 90.0),
            ("1m30s", 90.0),
            ("1h 1m", 3660.0),
            ("500ms", 0.5),
            ("1d", 86_400.0),
        ] {
            assert_eq!(time(text).map(|time| time.as_secs_f64()), Some(seconds), "{text}");
        }
        for text in ["", "soon", "5x", "s", "-1s"] {
            assert_eq!(time(text), None, "{text}");
        }
    }

    #[test]
    fn variables_are_found_whole() {
        let found = variables("$a \"${b_c}d\" $request_method:$uri$");
        assert_eq!(found, ["", "a", "b_c", "request_method", "uri"].map(str::to_owned).into());
    }
}
