//! Finds the fields of the data that a template uses, by static analysis of its syntax.
//!
//! It follows names bound to `json("data.json")`, their fields, `at` with a literal key, loops and destructuring, and
//! the closures of array methods. Elements of an array have the path of the array: `item.price` in `for item in
//! data.items` is `items.price`. It does not follow values passed to functions of the template.

use std::collections::BTreeSet;

use typst::syntax::ast::{self, AstNode, Expr, Pattern};
use typst::syntax::{SyntaxKind, SyntaxNode};

use super::data_access::{is_data, loaded, loader};

/// Methods that return the array itself, some of its elements, or one element.
const SAME: [&str; 11] =
    ["first", "last", "at", "rev", "sorted", "filter", "slice", "find", "enumerate", "dedup", "chunks"];

/// Methods whose closure receives elements of the array.
const EACH: [&str; 9] = ["map", "filter", "find", "position", "any", "all", "sorted", "dedup", "flat-map"];

/// Methods that return something else.
const OTHER: [&str; 19] = [
    "len",
    "keys",
    "values",
    "pairs",
    "join",
    "sum",
    "product",
    "fold",
    "contains",
    "split",
    "trim",
    "replace",
    "map",
    "position",
    "any",
    "all",
    "starts-with",
    "ends-with",
    "flatten",
];

/// The fields that a template uses.
pub(super) fn fields(root: &SyntaxNode) -> BTreeSet<String> {
    let mut finder = Finder { scopes: vec![Vec::new()], found: BTreeSet::new() };
    finder.visit(root);
    finder.found
}

/// A path in the data: the names of its fields.
type Path = Vec<String>;

struct Finder {
    /// The paths of names, innermost scope last. `None` hides an outer name.
    scopes: Vec<Vec<(String, Option<Path>)>>,
    found: BTreeSet<String>,
}

impl Finder {
    fn visit(&mut self, node: &SyntaxNode) {
        if let Some(binding) = node.cast::<ast::LetBinding>() {
            return self.visit_let(binding);
        }
        if let Some(looped) = node.cast::<ast::ForLoop>() {
            return self.visit_for(looped);
        }
        if let Some(closure) = node.cast::<ast::Closure>() {
            return self.visit_closure(closure, None);
        }
        if matches!(node.kind(), SyntaxKind::CodeBlock | SyntaxKind::ContentBlock) {
            return self.scoped(|finder| node.children().for_each(|child| finder.visit(child)));
        }
        match node.cast::<Expr>() {
            Some(expression @ (Expr::FieldAccess(_) | Expr::FuncCall(_) | Expr::Ident(_))) => {
                self.path_of(expression);
            }
            _ => node.children().for_each(|child| self.visit(child)),
        }
    }

    fn scoped(&mut self, work: impl FnOnce(&mut Self)) {
        self.scopes.push(Vec::new());
        work(self);
        self.scopes.pop();
    }

    fn visit_let(&mut self, binding: ast::LetBinding<'_>) {
        match (binding.kind(), binding.init()) {
            (ast::LetBindingKind::Closure(name), Some(init)) => {
                self.bind(name, None);
                self.visit(init.to_untyped());
            }
            (ast::LetBindingKind::Normal(pattern), Some(init)) => {
                let path = self.path_of(init);
                self.destructure(pattern, path.as_ref());
            }
            _ => binding.kind().bindings().into_iter().for_each(|name| self.bind(name, None)),
        }
    }

    fn visit_for(&mut self, looped: ast::ForLoop<'_>) {
        let path = self.path_of(looped.iterable());
        let pairs = is_enumerated(looped.iterable());
        self.scoped(|finder| {
            finder.element(looped.pattern(), path.as_ref(), pairs);
            finder.visit(looped.body().to_untyped());
        });
    }

    /// Binds a pattern to one element. `enumerate` gives pairs; the second of each pair is the element.
    fn element(&mut self, pattern: Pattern<'_>, path: Option<&Path>, pairs: bool) {
        let (true, Pattern::Destructuring(parts)) = (pairs, pattern) else {
            return self.destructure(pattern, path);
        };
        for (place, item) in parts.items().enumerate() {
            if let ast::DestructuringItem::Pattern(part) = item {
                self.destructure(part, path.filter(|_| place == 1));
            }
        }
    }

    /// Visits a closure; `given` is the path whose elements a method passes to it.
    fn visit_closure(&mut self, closure: ast::Closure<'_>, given: Option<(&Path, bool)>) {
        self.scoped(|finder| {
            for (place, parameter) in closure.params().children().enumerate() {
                match parameter {
                    ast::Param::Pos(pattern) => match given.filter(|_| place == 0) {
                        Some((path, pairs)) => finder.element(pattern, Some(path), pairs),
                        None => finder.destructure(pattern, None),
                    },
                    ast::Param::Named(named) => {
                        finder.visit(named.expr().to_untyped());
                        finder.bind(named.name(), None);
                    }
                    ast::Param::Spread(spread) => {
                        spread.sink_ident().into_iter().for_each(|name| finder.bind(name, None))
                    }
                }
            }
            finder.visit(closure.body().to_untyped());
        });
    }

    /// Binds the names of a pattern. In a dictionary pattern each name is bound to the field of that name.
    fn destructure(&mut self, pattern: Pattern<'_>, path: Option<&Path>) {
        match pattern {
            Pattern::Normal(Expr::Ident(name)) => self.bind(name, path.cloned()),
            Pattern::Parenthesized(inner) => self.destructure(inner.pattern(), path),
            Pattern::Destructuring(parts) => {
                for item in parts.items() {
                    match item {
                        ast::DestructuringItem::Pattern(Pattern::Normal(Expr::Ident(name))) => {
                            let field = path.map(|path| self.field(path, name.as_str()));
                            self.bind(name, field);
                        }
                        ast::DestructuringItem::Named(named) => {
                            let field = path.map(|path| self.field(path, named.name().as_str()));
                            self.destructure(named.pattern(), field.as_ref());
                        }
                        ast::DestructuringItem::Spread(rest) => {
                            rest.sink_ident().into_iter().for_each(|name| self.bind(name, None));
                        }
                        ast::DestructuringItem::Pattern(part) => self.destructure(part, None),
                    }
                }
            }
            Pattern::Normal(_) | Pattern::Placeholder(_) => {}
        }
    }

    fn bind(&mut self, name: ast::Ident<'_>, path: Option<Path>) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.push((name.get().to_string(), path));
        }
    }

    fn field(&mut self, path: &Path, name: &str) -> Path {
        let mut longer = path.clone();
        longer.push(name.to_owned());
        self.found.insert(longer.join("."));
        longer
    }

    /// The path of an expression in the data, if it has one. Records the fields it uses.
    fn path_of(&mut self, expression: Expr<'_>) -> Option<Path> {
        let path = self.resolve(expression)?;
        if matches!(expression, Expr::FieldAccess(_)) || key_of(expression).is_some() {
            self.found.insert(path.join("."));
        }
        Some(path)
    }

    /// As [`Self::path_of`], but does not record the expression itself: `customer.name` is listed only as a whole.
    fn resolve(&mut self, expression: Expr<'_>) -> Option<Path> {
        match expression {
            Expr::Ident(name) => {
                let mut names = self.scopes.iter().rev().flat_map(|scope| scope.iter().rev());
                names.find(|(known, _)| known == name.as_str()).and_then(|(_, path)| path.clone())
            }
            Expr::Parenthesized(inner) => self.path_of(inner.expr()),
            Expr::FieldAccess(access) => {
                let mut path = self.resolve(access.target())?;
                path.push(access.field().as_str().to_owned());
                Some(path)
            }
            Expr::FuncCall(call) => self.path_of_call(call),
            _ => {
                self.visit(expression.to_untyped());
                None
            }
        }
    }

    fn path_of_call(&mut self, call: ast::FuncCall<'_>) -> Option<Path> {
        if let Some((name, source)) = loader(call.callee()).zip(loaded(call))
            && is_data(name, source)
        {
            return (name == "json").then(Path::new);
        }
        let Expr::FieldAccess(access) = call.callee() else {
            self.visit(call.callee().to_untyped());
            self.visit(call.args().to_untyped());
            return None;
        };
        let method = access.field().as_str();
        if !SAME.contains(&method) && !EACH.contains(&method) && !OTHER.contains(&method) {
            self.path_of(access.target());
            self.visit(call.args().to_untyped());
            return None;
        }
        if let Some(key) = key_of(Expr::FuncCall(call)) {
            let target = self.resolve(access.target());
            self.visit_arguments(call, None);
            return target.map(|path| [path, vec![key]].concat());
        }
        let target = self.path_of(access.target());
        self.visit_arguments(call, target.as_ref().filter(|_| EACH.contains(&method)));
        target.filter(|_| SAME.contains(&method))
    }

    fn visit_arguments(&mut self, call: ast::FuncCall<'_>, each: Option<&Path>) {
        let pairs = matches!(call.callee(), Expr::FieldAccess(access) if is_enumerated(access.target()));
        for argument in call.args().items() {
            match (argument, each) {
                (ast::Arg::Pos(Expr::Closure(closure)), Some(path)) => self.visit_closure(closure, Some((path, pairs))),
                _ => self.visit(argument.to_untyped()),
            }
        }
    }
}

/// The literal key in `.at("key")`.
fn key_of(expression: Expr<'_>) -> Option<String> {
    let Expr::FuncCall(call) = expression else { return None };
    match (call.callee(), loaded(call)?) {
        (Expr::FieldAccess(access), Expr::Str(key)) if access.field().as_str() == "at" => Some(key.get().to_string()),
        _ => None,
    }
}

/// Whether an expression ends with `.enumerate()`.
fn is_enumerated(expression: Expr<'_>) -> bool {
    let Expr::FuncCall(call) = expression else { return false };
    matches!(call.callee(), Expr::FieldAccess(access) if access.field().as_str() == "enumerate")
}
