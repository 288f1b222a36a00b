//! What wit/v0.1 says, as Rust types. Generated; nothing outside this room sees them.

wasmtime::component::bindgen!({
    path: "wit/v0.1",
    world: "rubric",
    imports: { default: trappable },
});
