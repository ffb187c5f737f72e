//! What a template's source may ask of the compiler.
//!
//! minijinja limits how deep brackets and blocks nest, but a chain (`a + a + …`, `a.b.b…`, a row of `elif`)
//! is a tree as deep as it is long, and the compiler walks it recursively; and it computes products of
//! constants then and there (`'x' * 9999 * 9999`). Both are seen in the tokens, before anything is parsed.

use minijinja::machinery::{Token, tokenize};
use minijinja::syntax::SyntaxConfig;

use super::meter::{ELEMENT, MAX_TEXT};
use crate::error::{Error, Result};

/// Bytes a template's source may have; the longest in use have about 20,000.
const MAX_SOURCE: usize = 128 << 10;
/// Operators around one operand, counted through all brackets; in use are up to 40.
const MAX_CHAIN: usize = 256;
/// `elif` in one template; in use are up to 20.
const MAX_ELIF: usize = 128;

/// One tag, as far as it has been read.
#[derive(Debug, Default)]
struct Tag {
    /// Operators so far in each open bracket: what a comma separates is no chain.
    chains: Vec<usize>,
    multiplies: bool,
    /// At least the largest number that its constants can make.
    factor: usize,
    /// At least the bytes of its constants.
    constants: usize,
}

impl Tag {
    fn new() -> Self {
        Self { chains: vec![0], factor: 1, ..Self::default() }
    }

    fn operator(&mut self) {
        if let Some(chain) = self.chains.last_mut() {
            *chain += 1;
        }
    }

    fn scale(&mut self, by: u64) {
        self.factor = self.factor.saturating_mul(usize::try_from(by.max(2)).unwrap_or(usize::MAX));
    }

    fn read(&mut self, token: &Token<'_>) {
        match token {
            Token::ParenOpen | Token::BracketOpen | Token::BraceOpen => {
                self.operator();
                self.chains.push(0);
                self.constants += ELEMENT;
            }
            Token::ParenClose | Token::BracketClose | Token::BraceClose if self.chains.len() > 1 => {
                self.chains.pop();
            }
            Token::Comma => {
                self.constants += ELEMENT;
                if let Some(chain) = self.chains.last_mut() {
                    *chain = 0;
                }
            }
            Token::Mul | Token::Pow => {
                self.operator();
                self.multiplies = true;
                if matches!(token, Token::Pow) {
                    self.factor = usize::MAX;
                }
            }
            Token::Int(number) => self.scale(*number),
            Token::Int128(_) => self.factor = usize::MAX,
            Token::Str(text) => self.constants += text.len(),
            Token::String(text) => self.constants += text.len(),
            Token::Plus | Token::Minus | Token::Div | Token::FloorDiv | Token::Mod | Token::Tilde => {
                self.operator()
            }
            Token::Dot | Token::Pipe | Token::Ident("and" | "or" | "is" | "if") => self.operator(),
            // True counts as 1 in a sum.
            Token::Eq | Token::Ne | Token::Gt | Token::Gte | Token::Lt | Token::Lte => self.scale(2),
            Token::Ident("true" | "True") => self.scale(2),
            Token::Ident("not" | "in") => {
                self.operator();
                self.scale(2);
            }
            _ => {}
        }
    }
}

/// Checks a source before it is compiled.
pub(super) fn check(source: &str, syntax: &SyntaxConfig) -> Result<()> {
    let refused = |what: String| Err(Error::Model(format!("the chat template {what}")));
    if source.len() > MAX_SOURCE {
        return refused(format!("has {} bytes, the limit is {MAX_SOURCE}", source.len()));
    }
    let (mut tag, mut elifs, mut products) = (Tag::new(), 0_usize, 0_usize);
    for token in tokenize(source, false, syntax.clone()) {
        let (token, span) =
            token.map_err(|error| Error::Model(format!("the chat template is at fault: {error}")))?;
        let line = span.start_line;
        match &token {
            Token::BlockStart | Token::VariableStart => tag = Tag::new(),
            Token::BlockEnd | Token::VariableEnd if tag.multiplies => {
                products = products.saturating_add(tag.factor.saturating_mul(tag.constants));
                if products > MAX_TEXT {
                    return refused(format!(
                        "multiplies constants to more than {MAX_TEXT} bytes (line {line})"
                    ));
                }
            }
            Token::Ident("elif") => {
                elifs += 1;
                if elifs > MAX_ELIF {
                    return refused(format!("has more than {MAX_ELIF} elif (line {line})"));
                }
            }
            token => tag.read(token),
        }
        if tag.chains.iter().sum::<usize>() > MAX_CHAIN {
            return refused(format!("has an expression of more than {MAX_CHAIN} operators (line {line})"));
        }
    }
    Ok(())
}
