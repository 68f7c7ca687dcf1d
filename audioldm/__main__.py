import sys

from audioldm.commands.generate import main

sys.exit(main())
