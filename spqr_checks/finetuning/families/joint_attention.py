"""What the transformers with joint attention (MMDiT) share.

Text and image are two streams of tokens with projections of their own (``add_…`` for text), whose
queries, keys and values meet in one attention (Esser et al. 2024, section 4).
"""

from __future__ import annotations

from spqr_checks.models import adapters

TARGETS = (*adapters.TARGETS, "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
"""Queries, keys, values and outputs of both streams."""

CROSS_ATTENTION = r"\battn\.(add_k_proj|add_v_proj|to_add_out)\."
"""Keys, values and outputs of the text stream.

There is no cross-attention here, so that which weights correspond to a UNet's is our
reconstruction: image tokens read the text through its keys and values, as through ``to_k`` and
``to_v`` of a cross-attention, and ``to_add_out`` is what the text takes from the attention, the
counterpart of ``to_out``. Queries stay frozen in both. Blocks with one stream (Flux) project text
and image by the same weights and are left alone.
"""
