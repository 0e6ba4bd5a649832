"""A hub for a class on one server with systemd: see docs/teaching.md.

Each student is an account of the server in the group `students`, and logs in with its password.
Each student's JupyterLab, notebooks and VM are one systemd unit, whose limits the kernel keeps.
"""

from pathlib import Path

HERE = Path(__file__).resolve().parent

# The gradebook, the solutions and the hidden tests, in Git's history as well: as in confined.py.
NOT_FOR_STUDENTS = ("course", "hub", "classroom/course/source", "tests", ".git")

c = get_config()  # noqa: F821
load_subconfig(str(HERE.parent / "base_config.py"))  # noqa: F821

# Behind a web server that speaks HTTPS; nothing of the hub is reachable but through it.
c.JupyterHub.bind_url = "http://127.0.0.1:8000"
c.JupyterHub.db_url = "sqlite:////var/lib/ebpflab-hub/jupyterhub.sqlite"
c.JupyterHub.cookie_secret_file = "/var/lib/ebpflab-hub/cookie_secret"
c.ConfigurableHTTPProxy.command = ["/opt/ebpflab-hub/node_modules/.bin/configurable-http-proxy"]

c.JupyterHub.authenticator_class = "pam"
c.PAMAuthenticator.allowed_groups = {"students", "teachers"}
c.PAMAuthenticator.admin_groups = {"teachers"}

c.JupyterHub.spawner_class = "systemd"
c.SystemdSpawner.cmd = ["/opt/ebpflab/.venv/bin/jupyterhub-singleuser"]
c.SystemdSpawner.mem_limit = "2.5G"  # JupyterLab, kernels, and one or two VMs
c.SystemdSpawner.cpu_limit = 2.0
c.SystemdSpawner.isolate_tmp = True
c.SystemdSpawner.disable_user_sudo = True
c.SystemdSpawner.unit_extra_properties = {
    "TasksMax": "400",
    "LimitFSIZE": "2G",
    "SupplementaryGroups": "kvm",  # /dev/kvm, so devices are not isolated
    "InaccessiblePaths": " ".join(f"-/opt/ebpflab/{name}" for name in NOT_FOR_STUDENTS),
    "IPAddressDeny": "any",
    "IPAddressAllow": "localhost",
}
