"""A hub on this machine, on loopback: `make hub`.

Students have no accounts: any name does, with the one password that is printed at the start
(a new one each time, or EBPFLAB_HUB_PASSWORD). Run by root, each student is a user of their own.
The load test has a hub of its own, by EBPFLAB_HUB_URL and EBPFLAB_HUB_FOLDER.
"""

import os
import secrets
import sys
from pathlib import Path
from urllib.parse import urlsplit

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
HUB = Path(os.environ.get("EBPFLAB_HUB_FOLDER", REPOSITORY / "hub"))  # homes and the database
sys.path.insert(0, str(HERE))
HUB.mkdir(exist_ok=True)

c = get_config()  # noqa: F821
load_subconfig(str(HERE / "base_config.py"))  # noqa: F821

c.JupyterHub.bind_url = os.environ.get("EBPFLAB_HUB_URL", "http://127.0.0.1:8000")
port = urlsplit(c.JupyterHub.bind_url).port
c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{port + 1}"
c.JupyterHub.hub_bind_url = f"http://127.0.0.1:{port + 2}"
c.JupyterHub.db_url = f"sqlite:///{HUB / 'jupyterhub.sqlite'}"
c.JupyterHub.cookie_secret_file = str(HUB / "cookie_secret")
c.ConfigurableHTTPProxy.pid_file = str(HUB / "proxy.pid")
c.ConfigurableHTTPProxy.command = [
    str(REPOSITORY / "hub/node_modules/.bin/configurable-http-proxy")
]

password = os.environ.get("EBPFLAB_HUB_PASSWORD") or secrets.token_urlsafe(9)
c.JupyterHub.authenticator_class = "shared-password"
c.SharedPasswordAuthenticator.user_password = password
c.Authenticator.allow_all = True
c.Authenticator.username_pattern = r"[a-z0-9][a-z0-9_-]{0,31}"  # it names the home: never ".."

c.JupyterHub.spawner_class = "students.StudentSpawner"
c.SimpleLocalProcessSpawner.home_dir_template = str(HUB / "homes" / "{username}")
print(f"The hub: {c.JupyterHub.bind_url}   any name, with the password {password}", flush=True)
