//! The shim, compiled when it is first needed.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// Where the shared object is.
///
/// # Panics
///
/// There is no C compiler.
pub(crate) fn path() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/powercut/shim.c");
        let built = Path::new(env!("CARGO_TARGET_TMPDIR")).join("powercut-shim.so");
        // Another run may be loading the old one: it is replaced, and not written into.
        let new = built.with_extension(std::process::id().to_string());
        let compiled = Command::new("cc")
            .args([
                "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o",
            ])
            .args([&new, &source])
            .arg("-lpthread")
            .status()
            .expect("there is no C compiler (cc) in PATH: apt-get install gcc libc6-dev");
        assert!(compiled.success(), "the shim does not compile");
        std::fs::rename(&new, &built).expect("the shim goes where it belongs");
        built
    })
}
