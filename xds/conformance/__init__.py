"""Is a client a good xDS client?  The 58 cases of docs/conformance.md, played by a scripted ADS server.

Knows xDS and processes; nothing of kernels, daemons or our own client (but for `own.py`).

In reading order:
`transcript.py`   what was said on the wire, in order: requests, responses, streams
`script.py`       a case is a description: what the server does, what must be seen, what the probe must say
`checks.py`       what can be asked of a transcript
`meshes.py`       the resources that the scripts are about
`cases_requests.py`  the scripts themselves; and `cases_answers.py`, `cases_absence.py`, `cases_faulty.py`,
                  `cases_apply.py`, `cases_delta.py`, `cases_stream.py`, `cases_content.py`
`catalogue.py`    all cases in order, and those that nobody can judge from outside
`mesh.py`         the server's own mind: it answers what a script does not
`wire.py`         bytes of responses and requests
`server.py`       the gRPC server of one case
`subject.py`      the client's and the probe's processes, and `place.py`: what they are told
`player.py`       plays a script to a client
`suite.py`        plays many, several at once
`report.py`       the table, and JUnit, of each `verdict.py`
`own.py`          our own client, as a subject without daemon and kernel
"""
