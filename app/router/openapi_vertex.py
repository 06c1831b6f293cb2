"""The Vertex surface in the OpenAPI description: bodies and answers that no other surface has."""

from typing import Any

from app.core.vertex_rules import CHAT_FORMAT, CHAT_ONLY, FORMAT, MAX_INSTANCES, PROMPTS, RAW
from app.router.openapi_parts import COUNT, TEXT, Json, array, record, ref

NOT_OF_AN_INSTANCE = ("model", "stream", "stream_options")
_TIME = {"type": "string", "format": "date-time"}
_COUNTED = record({"totalTokens": COUNT})


def forms(chat: Json) -> Json:
    """The bodies of :predict, of the fields of a chat that needs no model."""
    fields: dict[str, Any] = chat["properties"]
    settings = {name: form for name, form in fields.items() if name not in ("messages", *NOT_OF_AN_INSTANCE)}
    with_prompt = {name: form for name, form in settings.items() if name not in CHAT_ONLY}
    raw = {"const": True, "description": "No answer repeats the prompt, which is all that this asks for"}
    streamed = {"stream": fields["stream"]}
    prompt = {
        "type": "object", "title": "With a prompt", "additionalProperties": False,
        "oneOf": [{"required": [name]} for name in PROMPTS],
        "properties": {name: TEXT for name in PROMPTS} | with_prompt | {RAW: raw} | streamed,
    }  # fmt: skip
    messages = {
        "type": "object", "title": "With messages", "additionalProperties": False, "required": [FORMAT, "messages"],
        "properties": {FORMAT: {"const": CHAT_FORMAT}, "messages": fields["messages"], **settings, **streamed},
    }  # fmt: skip
    return {
        "Instance": {
            "description": "Either `prompt` or `text`, which is answered like one message of a user, or messages; "
            "`stream` is for :streamRawPredict",
            "anyOf": [prompt, messages],
        },
        "PredictRequest": {
            "type": "object", "additionalProperties": False, "required": ["instances"],
            "properties": {
                "instances": {
                    **array(ref("Instance")), "minItems": 1, "maxItems": MAX_INSTANCES,
                    "description": "Each is a request of its own, also for limits; all run at once",
                },
                "parameters": {
                    "type": ["object", "null"], "additionalProperties": False, "properties": settings | streamed,
                    "description": "For all instances; an instance's own fields win",
                },
            },
        },
    }  # fmt: skip


SCHEMAS: Json = {
    "PredictResponse": record(
        {
            "predictions": {
                "description": "For each instance: the text for a prompt, a ChatAnswer for messages; of a single "
                "instance with messages not a list, but the ChatAnswer itself",
                "anyOf": [array({"anyOf": [TEXT, ref("ChatAnswer")]}), ref("ChatAnswer")],
            },
            "deployedModelId": {"type": "string", "description": "The revision that answered"},
            "model": {"type": "string", "description": "The model as the endpoint names it"},
            "modelDisplayName": {"type": "string", "description": "The endpoint's name"},
            "modelVersionId": {"type": "string", "description": "The precision"},
            "metadata": record(
                {"tokenMetadata": record({"inputTokenCount": _COUNTED, "outputTokenCount": _COUNTED})}
            ),
        }
    ),
    "VertexEndpoint": record(
        {
            "name": TEXT, "displayName": TEXT, "createTime": _TIME, "updateTime": _TIME,
            "deployedModels": array(
                record(
                    {
                        "id": {"type": "string", "description": "The revision"},
                        "model": TEXT, "displayName": TEXT, "createTime": _TIME,
                        "dedicatedResources": record(
                            {
                                "machineSpec": record(
                                    {"machineType": TEXT, "acceleratorType": TEXT, "acceleratorCount": COUNT}
                                ),
                                "minReplicaCount": COUNT, "maxReplicaCount": COUNT,
                            }
                        ),
                        "enableContainerLogging": {"type": "boolean"},
                        "privateEndpoints": record({"serviceAttachment": {"type": "null"}}),
                        "modelVersionId": {"type": "string", "description": "The precision"},
                        "status": record({"lastUpdateTime": _TIME, "availableReplicaCount": COUNT}),
                    }
                )
            ),
            "trafficSplit": {
                "type": "object", "additionalProperties": COUNT, "description": "Percent by deployed model's ID",
            },
            "etag": {"type": "string", "description": "Another one after each change of the wish; for If-Match"},
            "privateServiceConnectConfig": record(
                {"enablePrivateServiceConnect": {"type": "boolean"}, "projectAllowlist": array(TEXT)}
            ),
            "dedicatedEndpointEnabled": {"const": True},
            "dedicatedEndpointDns": {
                "type": "string", "description": "Host and port for all paths here: where the caller reached us",
            },
        }
    ),
    "VertexOperation": record(
        {"name": TEXT, "metadata": {"type": "object"}, "done": {"type": "boolean"}},
        response=record({"endpoint": TEXT, "model": TEXT}),
        error=record({"code": {"type": "integer"}, "message": TEXT}),
    ),
}  # fmt: skip
