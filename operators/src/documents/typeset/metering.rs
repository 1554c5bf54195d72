//! Instruction metering: inserts a step counter into a template, because typst can neither be stopped nor limited.
//!
//! The source is rewritten before it is evaluated: the body of each loop, function and `context` first calls [`TICK`],
//! each product is computed by [`TIMES`], and the argument of each function that loads files passes through [`LOADED`].
//! The library defines these three. Rewriting never adds or removes a line. [`MeteredSource::original`] maps the places
//! of errors back to the uploaded template.

use std::ops::Range;

use typst::syntax::ast::{self, AstNode};
use typst::syntax::{LinkedNode, SyntaxKind};

use super::data_access::{is_data, loaded, loader};

/// Counts one step.
pub(super) const TICK: &str = "caudal-tick";
/// Multiplies, within the limits of text and array sizes.
pub(super) const TIMES: &str = "caudal-times";
/// Accepts bytes and `data:` URLs, but no path.
pub(super) const LOADED: &str = "caudal-loaded";
/// Prefix of the names above, reserved: names in a template must not begin with it.
pub(super) const RESERVED: &str = "caudal-";
/// Index of a font that does not exist. [`TICK`] asks the world for it, which counts the step.
pub(super) const STEP_FONT: usize = usize::MAX;

/// A source with metering calls.
pub(super) struct MeteredSource {
    /// The rewritten source, which is evaluated.
    pub(super) text: String,
    /// In order of position, not overlapping.
    edits: Vec<Edit>,
}

/// Replaces a range of the original, which may be empty, by a text.
struct Edit {
    range: Range<usize>,
    text: String,
}

impl MeteredSource {
    /// Rewrites a source, which must have no syntax errors.
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

    /// Maps a byte offset of the rewritten text to the original.
    pub(super) fn original(&self, at: usize) -> usize {
        // Offsets in the rewritten text and in the original, before the current edit.
        let (mut written, mut read) = (0, 0);
        for edit in &self.edits {
            let unchanged = edit.range.start - read;
            if at < written + unchanged {
                break;
            }
            written += unchanged;
            if at < written + edit.text.len() {
                return edit.range.start;
            }
            written += edit.text.len();
            read = edit.range.end;
        }
        read + (at - written)
    }

    /// Memory that metering adds, in bytes.
    pub(super) fn added(&self) -> usize {
        self.edits.len() * size_of::<Edit>() + self.text.len()
    }
}

/// Pushes the edits in the order of their positions, so that the end of an inner expression comes before the end of the
/// outer one and before the replacement of a following operator.
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

/// The replacement of `*` and `*=`: `a * b` becomes `TIMES(a , b)`, and `a *= b` becomes `a = TIMES(a, b)`.
fn operator(source: &str, node: &LinkedNode<'_>) -> Option<String> {
    let binary = node.parent().filter(|parent| parent.kind() == SyntaxKind::Binary)?;
    match node.kind() {
        SyntaxKind::Star => Some(",".into()),
        SyntaxKind::StarEq => Some(format!("= {TIMES}({},", source[binary.offset()..node.offset()].trim())),
        _ => None,
    }
}

/// The texts to insert before and after a node.
fn wrapping(node: &LinkedNode<'_>) -> (String, String) {
    let (mut open, mut close) = (String::new(), String::new());
    if is_body(node) {
        // A plain expression is parenthesised, since it may span several lines.
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
        // The space separates it from a keyword: `in(a)*b`.
        Some(ast::BinOp::Mul) => {
            open.push_str(&format!(" {TIMES}("));
            close.insert(0, ')');
        }
        Some(ast::BinOp::MulAssign) => close.insert(0, ')'),
        _ => {}
    }
    (open, close)
}

/// Whether a node is the body of a loop, a function or a `context`, which is evaluated repeatedly.
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

/// Whether a node cannot be parenthesised, or need not be.
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

/// Whether a node is the source that a function loads, other than the data. `image(x)` becomes `image(LOADED(x))`.
fn is_loaded(node: &LinkedNode<'_>) -> bool {
    let call = node.parent().and_then(LinkedNode::parent).and_then(|call| call.get().cast::<ast::FuncCall>());
    let Some((call, name)) = call.and_then(|call| Some((call, loader(call.callee())?))) else { return false };
    let source = loaded(call);
    source.is_some_and(|source| std::ptr::eq(source.to_untyped(), node.get()) && !is_data(name, source))
}

fn insert(at: usize, text: String) -> Edit {
    Edit { range: at..at, text }
}
