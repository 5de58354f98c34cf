"""Networks at run time: bundles, engines, back ends, and which of them may be run."""
