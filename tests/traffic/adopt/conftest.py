from tests.kit.keepers import agent, kept

__all__ = ["agent", "kept"]
