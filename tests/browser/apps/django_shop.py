"""The shop on Django, as a server of a site with TLS runs it; as a program it makes the table of users.

Both nodes have the one database, as they would on a real site.
"""

import os
from pathlib import Path

from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from examples.django_shop import configure

path = Path(os.environ["CANISTER_PATH"])
configure(path, path.with_name("users.db"), CSRF_COOKIE_SECURE=True)
app = get_wsgi_application()

if __name__ == "__main__":
    call_command("migrate", verbosity=0)
