//! Recognises calls that load a file, and those that load the data, in the syntax of a template.

use typst::syntax::ast;

/// Functions that load a file: their first argument is a path or bytes.
const LOADERS: [&str; 9] = ["read", "csv", "json", "toml", "yaml", "cbor", "xml", "image", "bibliography"];

/// The first positional argument, which is what the function loads.
pub(super) fn loaded(call: ast::FuncCall<'_>) -> Option<ast::Expr<'_>> {
    call.args().items().find_map(|argument| match argument {
        ast::Arg::Pos(value) => Some(value),
        _ => None,
    })
}

/// The loading function that is called, if any: by its name, or as a field of `std`.
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

/// Whether this call loads the template's data.
pub(super) fn is_data(loader: &str, source: ast::Expr<'_>) -> bool {
    let ast::Expr::Str(path) = source else { return false };
    matches!(loader, "json" | "read") && matches!(path.get().as_str(), "data.json" | "/data.json")
}
