"""What every hub of this course has in common, on one machine or on a cluster of one's own."""

import sys

c = get_config()  # noqa: F821

# No lab outlives its use. The VM ends with its Lab, which ends with its notebook's kernel: idle
# kernels go after 20 minutes, a student's whole server after 40.
KERNEL_IDLE_SECONDS = 1200
SERVER_IDLE_SECONDS = 2400

c.Spawner.cmd = ["jupyterhub-singleuser"]
c.Spawner.args = [
    f"--MappingKernelManager.cull_idle_timeout={KERNEL_IDLE_SECONDS}",
    "--MappingKernelManager.cull_interval=60",
    "--MappingKernelManager.cull_connected=True",  # a page left open keeps no VM
]
c.Spawner.default_url = "/lab"
c.Spawner.environment = {"EBPFLAB_TARGET": "vm"}  # the machine itself is never traced
c.Spawner.start_timeout = 300  # a class at once, on two cores
c.Spawner.http_timeout = 300

c.JupyterHub.concurrent_spawn_limit = 40  # a class comes at once, and the hub turns nobody away
c.JupyterHub.load_roles = [
    {
        "name": "idle-culler",
        "services": ["idle-culler"],
        "scopes": ["list:users", "read:users:activity", "read:servers", "delete:servers"],
    }
]
c.JupyterHub.services = [
    {
        "name": "idle-culler",
        "command": [
            sys.executable,
            *("-m", "jupyterhub_idle_culler"),
            *(f"--timeout={SERVER_IDLE_SECONDS}", "--cull-every=120"),
        ],
    }
]
