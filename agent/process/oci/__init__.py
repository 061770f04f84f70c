"""Programs in containers: what a runtime is given (OCI Runtime Specification), and what is cleared away."""
