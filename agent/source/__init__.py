"""Where the desired state comes from: triggers, Git, schema, templates."""
