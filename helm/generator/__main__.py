"""Entry point of ``python -m helm.generator``."""

from helm.generator.generate import main

main()
