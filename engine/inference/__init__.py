"""Networks at run time: bundles, engines and back ends, and which of them may be run."""
