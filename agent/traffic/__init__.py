"""The owner of public ports: slots, steering, the gate, the maintenance responder."""
