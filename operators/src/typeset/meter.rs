//! Puts a meter into a template, since typst itself can be neither stopped nor limited.
//!
//! The source is rewritten before it is evaluated: each body of a loop, a function and a `context` first calls [`TICK`],
//! each product is computed by [`TIMES`], and whatever is handed to a function that loads files goes through [`LOADED`].
//! The library defines these three; no rewriting adds or removes a line. [`Metered::original`] leads the places of errors
//! back to what the user wrote.

use std::ops::Range;

use typst::syntax::ast::{self, AstNode};
use typst::syntax::{LinkedNode, SyntaxKind};

/// Counts one step.
pub(super) const TICK: &str = "caudal-tick";
/// Multiplies, within the bounds of texts and arrays.
pub(super) const TIMES: &str = "caudal-times";
/// Lets bytes and `data:` addresses pass, but no path.
pub(super) const LOADED: &str = "caudal-loaded";
/// What the names above begin with, and those of a template must not.
pub(super) const RESERVED: &str = "caudal-";

/// Functions whose first argument is a path or bytes.
pub(super) const LOADERS: [&str; 9] = ["read", "csv", "json", "toml", "yaml", "cbor", "xml", "image", "bibliography"];

/// A source with its meter.
pub(super) struct Metered {
    /// What is evaluated.
    pub(super) text: String,
    /// In order of place, none within another.
    edits: Vec<Edit>,
}

/// Puts a text in the place of a range of the original, which may be empty.
struct Edit {
    range: Range<usize>,
    text: String,
}

impl Metered {
    /// Rewrites a source that has no syntax errors.
    pub(super) fn new(source: &str, root: &LinkedNode<'_>) -> Self {
        let mut edits = Vec::new();
        collect(source, root, &mut edits);
        let mut text = String::with_capacity(source.len() + edits.iter().map(|edit| edit.text.len()).sum::<usize>());
        let mut copied = 0;
        for edit in &edits {
            text.push_str(&source[copied..edit.range.start]);
            text.push_str(&edit.text);
            copied = edit.range.end;
        }
        text.push_str(&source[copied..]);
        Self { text, edits }
    }

    /// The byte of the original that a byte of the rewritten text stands for.
    pub(super) fn original(&self, at: usize) -> usize {
        // Bytes of the rewritten text, and of the original, before the edit that is looked at.
        let (mut written, mut read) = (0, 0);
        for edit in &self.edits {
            let kept = edit.range.start - read;
            if at < written + kept {
                break;
            }
            written += kept;
            if at < written + edit.text.len() {
                return edit.range.start;
            }
            written += edit.text.len();
            read = edit.range.end;
        }
        read + (at - written)
    }

    /// How much was added, in bytes.
    pub(super) fn added(&self) -> usize {
        self.edits.len() * size_of::<Edit>() + self.text.len()
    }
}

/// Pushes the edits in the order of their places, so that what closes an inner expression comes before what closes the
/// outer one or replaces an operator behind it.
fn collect(source: &str, node: &LinkedNode<'_>, edits: &mut Vec<Edit>) {
    if let Some(text) = operator(source, node) {
        edits.push(Edit { range: node.range(), text });
        return;
    }
    let (open, close) = wrapping(node);
    let range = node.range();
    if !open.is_empty() {
        edits.push(insert(range.start, open));
    }
    for child in node.children() {
        collect(source, &child, edits);
    }
    if !close.is_empty() {
        edits.push(insert(range.end, close));
    }
}

/// What stands in the place of `*` and `*=`: `a * b` becomes `TIMES(a , b)`, and `a *= b` becomes `a = TIMES(a, b)`.
fn operator(source: &str, node: &LinkedNode<'_>) -> Option<String> {
    let binary = node.parent().filter(|parent| parent.kind() == SyntaxKind::Binary)?;
    match node.kind() {
        SyntaxKind::Star => Some(",".into()),
        SyntaxKind::StarEq => Some(format!("= {TIMES}({},", source[binary.offset()..node.offset()].trim())),
        _ => None,
    }
}

/// What opens and closes around a node.
fn wrapping(node: &LinkedNode<'_>) -> (String, String) {
    let (mut open, mut close) = (String::new(), String::new());
    if is_body(node) {
        // A plain expression is parenthesised, since it may go over several lines.
        let plain = !is_statement(node.kind());
        open.push_str(&format!("{{{TICK}();"));
        open.push_str(if plain { "(" } else { "" });
        close.insert_str(0, if plain { ")}" } else { "}" });
    }
    if is_loaded(node) {
        open.push_str(&format!("{LOADED}("));
        close.insert(0, ')');
    }
    match node.get().cast::<ast::Binary>().map(ast::Binary::op) {
        // The blank keeps it apart from a keyword: `in(a)*b`.
        Some(ast::BinOp::Mul) => {
            open.push_str(&format!(" {TIMES}("));
            close.insert(0, ')');
        }
        Some(ast::BinOp::MulAssign) => close.insert(0, ')'),
        _ => {}
    }
    (open, close)
}

/// Whether a node is what a loop, a function or a `context` evaluates again and again.
fn is_body(node: &LinkedNode<'_>) -> bool {
    let Some(parent) = node.parent().map(LinkedNode::get) else { return false };
    let body = match parent.kind() {
        SyntaxKind::WhileLoop => parent.cast::<ast::WhileLoop>().map(|it| it.body().to_untyped()),
        SyntaxKind::ForLoop => parent.cast::<ast::ForLoop>().map(|it| it.body().to_untyped()),
        SyntaxKind::Closure => parent.cast::<ast::Closure>().map(|it| it.body().to_untyped()),
        SyntaxKind::Contextual => parent.cast::<ast::Contextual>().map(|it| it.body().to_untyped()),
        _ => None,
    };
    body.is_some_and(|body| std::ptr::eq(body, node.get()))
}

/// Whether a node may not be parenthesised, or need not.
fn is_statement(kind: SyntaxKind) -> bool {
    matches!(
        kind,
        SyntaxKind::LetBinding
            | SyntaxKind::SetRule
            | SyntaxKind::ShowRule
            | SyntaxKind::DestructAssignment
            | SyntaxKind::ModuleImport
            | SyntaxKind::LoopBreak
            | SyntaxKind::LoopContinue
            | SyntaxKind::FuncReturn
            | SyntaxKind::CodeBlock
            | SyntaxKind::ContentBlock
    )
}

/// Whether a node is what one of [`LOADERS`] is to load, other than the data. `image(x)` becomes `image(LOADED(x))`.
fn is_loaded(node: &LinkedNode<'_>) -> bool {
    let call = node.parent().and_then(LinkedNode::parent).and_then(|call| call.get().cast::<ast::FuncCall>());
    let Some((call, name)) = call.and_then(|call| Some((call, loader(call.callee())?))) else { return false };
    let source = loaded(call);
    source.is_some_and(|source| std::ptr::eq(source.to_untyped(), node.get()) && !is_data(name, source))
}

/// The first positional argument.
pub(super) fn loaded(call: ast::FuncCall<'_>) -> Option<ast::Expr<'_>> {
    call.args().items().find_map(|argument| match argument {
        ast::Arg::Pos(value) => Some(value),
        _ => None,
    })
}

/// Which of [`LOADERS`] is called, if one is: by its name, or as a field of `std`.
pub(super) fn loader(callee: ast::Expr<'_>) -> Option<&'static str> {
    let name = match callee {
        ast::Expr::Ident(name) => name,
        ast::Expr::FieldAccess(access) => match access.target() {
            ast::Expr::Ident(module) if module.as_str() == "std" => access.field(),
            _ => return None,
        },
        _ => return None,
    };
    LOADERS.into_iter().find(|known| *known == name.as_str())
}

/// Whether this is how a template gets at its data.
pub(super) fn is_data(loader: &str, source: ast::Expr<'_>) -> bool {
    let ast::Expr::Str(path) = source else { return false };
    matches!(loader, "json" | "read") && matches!(path.get().as_str(), "data.json" | "/data.json")
}

fn insert(at: usize, text: String) -> Edit {
    Edit { range: at..at, text }
}
