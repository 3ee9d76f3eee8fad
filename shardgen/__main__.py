"""python -m shardgen."""

from shardgen.cli import main

if __name__ == "__main__":
    main()
