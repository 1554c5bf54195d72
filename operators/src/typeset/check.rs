//! What can be told of a template before anything is typeset: whether it can be read, and that it needs no other file.

use typst::syntax::ast;
use typst::syntax::{LinkedNode, Source, SyntaxKind, SyntaxNode};

use super::error::{Place, TypesetError};
use super::meter::{Metered, RESERVED, is_data, loaded, loader};
use super::render::start_of;

/// Modules of typst itself, which may be imported.
const MODULES: [&str; 7] = ["calc", "emoji", "math", "pdf", "std", "sym", "sys"];

/// How deep a source may nest. typst's parser stops at 256 brackets, but neither counts what chains make (`a + b + c`,
/// `a.b.c`, `else if`), nor survives them: it walks over them, and frees them, by recursion.
const DEPTH: usize = 500;

/// Refuses what is nested so deep that the stack would overflow.
pub(super) fn check_depth(text: &str) -> Result<(), TypesetError> {
    // In the order of places, parents before what is in them.
    let mut nodes = vec![typst::syntax::parse(text)];
    let mut ways = vec![(0, 1)];
    let mut deepest = 0;
    while let Some((place, depth)) = ways.pop() {
        deepest = deepest.max(depth);
        let first = nodes.len();
        let inner: Vec<SyntaxNode> = nodes[place].children().cloned().collect();
        nodes.extend(inner);
        ways.extend((first..nodes.len()).map(|child| (child, depth + 1)));
    }
    // Freed from the front: what is in a node is still held by the vector then, so that nothing is freed by recursion.
    drop(nodes);
    if deepest > DEPTH {
        return Err(TypesetError::syntax(format!(
            "the template nests {deepest} levels deep, more than the {DEPTH} allowed; divide its longest chain of \
             operators, fields or branches"
        )));
    }
    Ok(())
}

/// Refuses what cannot be a template: it may not be read, or wants what there is not.
pub(super) fn check(source: &Source) -> Result<(), TypesetError> {
    check_syntax(source, source.text(), |at| at)?;
    walk(source, &LinkedNode::new(source.root()))
}

/// Refuses what the meter has made too deep for the parser, which stops at 256 brackets.
pub(super) fn check_metered(source: &Source, metered: &Metered, written: &str) -> Result<(), TypesetError> {
    check_syntax(source, written, |at| metered.original(at))
}

fn check_syntax(source: &Source, written: &str, original: impl Fn(usize) -> usize) -> Result<(), TypesetError> {
    let (errors, _) = source.root().errors_and_warnings();
    let Some(first) = errors.first() else { return Ok(()) };
    let hints: String = first.hints.iter().map(|hint| format!(" (hint: {})", hint.v)).collect();
    let more = if errors.len() > 1 { format!(" (the first of {} errors)", errors.len()) } else { String::new() };
    let at = start_of(source, first.span).map_or(0, original);
    Err(TypesetError::syntax(format!("{}{hints}{more}", first.message)).at(Place::of(written, at)))
}

fn walk(source: &Source, node: &LinkedNode<'_>) -> Result<(), TypesetError> {
    if let Some(message) = refused(node.get()) {
        return Err(TypesetError::syntax(message).at(Place::of(source.text(), node.offset())));
    }
    node.children().try_for_each(|child| walk(source, &child))
}

/// Why a template may not have this node.
fn refused(node: &SyntaxNode) -> Option<String> {
    match node.kind() {
        SyntaxKind::Ident | SyntaxKind::MathIdent if node.leaf_text().starts_with(RESERVED) => {
            Some(format!("names that begin with {RESERVED} are reserved; take another than {}", node.leaf_text()))
        }
        SyntaxKind::ModuleInclude => Some(NO_FILES.to_owned()),
        SyntaxKind::ModuleImport => node.cast::<ast::ModuleImport>().and_then(refused_import),
        SyntaxKind::FuncCall => node.cast::<ast::FuncCall>().and_then(refused_call),
        _ => None,
    }
}

const NO_FILES: &str = "a template is one file and reads no other; put what it needs into it, or into the data";

fn refused_import(import: ast::ModuleImport<'_>) -> Option<String> {
    match import.source() {
        ast::Expr::Str(path) if path.get().starts_with('@') => Some(format!(
            "the package {} cannot be imported: packages are not available; put the functions you need into the template",
            path.get()
        )),
        ast::Expr::Ident(module) if MODULES.contains(&module.as_str()) => None,
        ast::Expr::FieldAccess(access) => match root_of(access.target()) {
            Some(module) if MODULES.contains(&module) => None,
            _ => Some(NO_FILES.to_owned()),
        },
        _ => Some(NO_FILES.to_owned()),
    }
}

fn root_of(expression: ast::Expr<'_>) -> Option<&str> {
    match expression {
        ast::Expr::Ident(name) => Some(name.as_str()),
        ast::Expr::FieldAccess(access) => root_of(access.target()),
        _ => None,
    }
}

fn refused_call(call: ast::FuncCall<'_>) -> Option<String> {
    let name = loader(call.callee())?;
    if call.args().items().any(|argument| matches!(argument, ast::Arg::Spread(_))) {
        return Some(format!(
            "the arguments of {name} cannot be spread: what it loads must be told apart from the others"
        ));
    }
    let source = loaded(call)?;
    match source {
        ast::Expr::Str(path) if !is_data(name, source) && !path.get().starts_with("data:") => {
            let shown: String = path.get().chars().take(80).collect();
            Some(format!(
                "there is no file {shown:?}: a template reads its data with json(\"data.json\") and nothing else"
            ))
        }
        _ => None,
    }
}
