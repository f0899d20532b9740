"""python -m greenpg."""

from .cli import main

raise SystemExit(main())
