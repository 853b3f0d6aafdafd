"""Compiled programs, kept between processes."""

from __future__ import annotations

from typing import Any

import jax

from ssl_gen.core.machine import cache_folder


def keep_compiled() -> None:
    """Keep compiled programs on disk between processes: in JAX_COMPILATION_CACHE_DIR, else the user's cache folder."""
    flags: Any = jax.config  # made as it is imported: its flags have no types
    if not flags.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "jax"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)  # else small programs are not kept
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
