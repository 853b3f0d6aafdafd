"""Compiled programs, kept between processes."""

from __future__ import annotations

import tempfile
import warnings
from typing import Any

import jax

from ssl_gen.core.files import say_once
from ssl_gen.core.machine import cache_folder


def keep_compiled() -> None:
    """Keep compiled programs on disk between processes: in JAX_COMPILATION_CACHE_DIR, else the user's cache folder.

    Where they cannot be kept, or one that was kept is broken, they are compiled again.
    """
    flags: Any = jax.config  # made as it is imported: its flags have no types
    if not flags.jax_compilation_cache_dir:
        folder = cache_folder()
        if folder is None:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder) as trial:
                trial.write(b"room")
        except OSError as error:
            say_once(f"cannot write {folder}: {error.strerror}; set XDG_CACHE_HOME to a folder of yours, to save time")
            return
        jax.config.update("jax_compilation_cache_dir", str(folder / "jax"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)  # else small programs are not kept
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    # jax says of each program that it could not be read or written, and compiles it: a full disk makes pages of that
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache entry")
