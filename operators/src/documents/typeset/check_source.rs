//! Checks a template before it is rendered: syntax, nesting depth, and that it loads no other file or package.

use typst::syntax::ast;
use typst::syntax::{LinkedNode, Source, SyntaxKind, SyntaxNode};

use super::data_access::{is_data, loaded, loader};
use super::error::TypesetError;
use super::metering::{MeteredSource, RESERVED};
use super::place::{Place, start_of};

/// Modules of typst, which may be imported.
const MODULES: [&str; 7] = ["calc", "emoji", "math", "pdf", "std", "sym", "sys"];

/// Deepest nesting of a source. typst's parser stops at 256 brackets, but does not count chains (`a + b + c`, `a.b.c`,
/// `else if`). It walks and frees them by recursion, so a long chain would overflow the stack.
const DEPTH: usize = 500;

/// Rejects a source that is nested so deep that the stack would overflow.
pub(super) fn check_depth(text: &str) -> Result<(), TypesetError> {
    // Parents before their children.
    let mut nodes = vec![typst::syntax::parse(text)];
    let mut pending = vec![(0, 1)];
    let mut deepest = 0;
    while let Some((place, depth)) = pending.pop() {
        deepest = deepest.max(depth);
        let first = nodes.len();
        let inner: Vec<SyntaxNode> = nodes[place].children().cloned().collect();
        nodes.extend(inner);
        pending.extend((first..nodes.len()).map(|child| (child, depth + 1)));
    }
    // Freed from the front: the vector still owns the children of a node then, so nothing is freed by recursion.
    drop(nodes);
    if deepest > DEPTH {
        return Err(TypesetError::syntax(format!(
            "the template is nested {deepest} levels deep; the limit is {DEPTH}: split its longest chain of operators, \
             fields or branches"
        )));
    }
    Ok(())
}

/// Rejects a template with syntax errors, or one that loads files or packages.
pub(super) fn check(source: &Source) -> Result<(), TypesetError> {
    check_syntax(source, source.text(), |at| at)?;
    walk(source, &LinkedNode::new(source.root()))
}

/// Rejects a source that metering has nested too deep for the parser, which stops at 256 brackets.
pub(super) fn check_metered(source: &Source, metered: &MeteredSource, written: &str) -> Result<(), TypesetError> {
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

/// The reason why a template may not contain this node.
fn refused(node: &SyntaxNode) -> Option<String> {
    match node.kind() {
        SyntaxKind::Ident | SyntaxKind::MathIdent if node.leaf_text().starts_with(RESERVED) => {
            Some(format!("names that begin with {RESERVED} are reserved; rename {}", node.leaf_text()))
        }
        SyntaxKind::ModuleInclude => Some(NO_FILES.to_owned()),
        SyntaxKind::ModuleImport => node.cast::<ast::ModuleImport>().and_then(refused_import),
        SyntaxKind::FuncCall => node.cast::<ast::FuncCall>().and_then(refused_call),
        _ => None,
    }
}

const NO_FILES: &str = "a template cannot load other files; put the content into the template or into the data";

fn refused_import(import: ast::ModuleImport<'_>) -> Option<String> {
    match import.source() {
        ast::Expr::Str(path) if path.get().starts_with('@') => Some(format!(
            "the package {} cannot be imported: packages are not available; copy the functions you need into the template",
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
            "the arguments of {name} cannot be spread, because the source it loads must be visible; write them out"
        ));
    }
    let source = loaded(call)?;
    match source {
        ast::Expr::Str(path) if !is_data(name, source) && !path.get().starts_with("data:") => {
            let shown: String = path.get().chars().take(80).collect();
            Some(format!("file {shown:?} does not exist: a template can only load its data, with json(\"data.json\")"))
        }
        _ => None,
    }
}
