"""The fields of stage messages, for those who write and for those who check them; it imports nothing."""

STATUSES = ("SUCCESS", "FAILURE", "UNSTABLE", "ABORTED")

#: In every message of both pipelines; all values are text.
BASE_FIELDS = (
    "CI_NAME",
    "CI_TYPE",
    "branch",
    "build_id",
    "build_url",
    "message-content",
    "namespace",
    "ref",
    "repo",
    "rev",
    "status",
    "test_guidance",
    "topic",
    "username",
)
NVR_FIELDS = ("nvr", "original_spec_nvr")
