"""``python -m retrograd``, which launchers such as torchrun start in several processes."""

from retrograd.cli import main

if __name__ == "__main__":
    main()
