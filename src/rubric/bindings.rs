//! What wit/v0.1 and wit/v0.2 say, as Rust types. Generated; nothing outside this room sees them.

/// gradus:rubric@0.1.0, as it was when rubrics could not say where they read a score.
pub(super) mod v0_1 {
    wasmtime::component::bindgen!({
        path: "wit/v0.1",
        world: "rubric",
        imports: { default: trappable },
    });
}

/// gradus:rubric@0.2.0.
pub(super) mod v0_2 {
    wasmtime::component::bindgen!({
        path: "wit/v0.2",
        world: "rubric",
        imports: { default: trappable },
    });
}
