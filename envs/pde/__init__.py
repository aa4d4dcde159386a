"""Plants governed by partial differential equations."""
