"""The names of all attributes that a span of an LLM call bears, in one table.

They are those of OpenTelemetry's GenAI semantic conventions v1.41 (status: Development, so names
move; only this file moves with them) and a few of our own under ``fallom.``. Where a name was
changed upstream and readers have not settled, both are here and both are written.
"""

from __future__ import annotations

OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
OUTPUT_TYPE = "gen_ai.output.type"

REQUEST_MODEL = "gen_ai.request.model"
TEMPERATURE = "gen_ai.request.temperature"
TOP_P = "gen_ai.request.top_p"
TOP_K = "gen_ai.request.top_k"
MAX_TOKENS = "gen_ai.request.max_tokens"
FREQUENCY_PENALTY = "gen_ai.request.frequency_penalty"
PRESENCE_PENALTY = "gen_ai.request.presence_penalty"
SEED = "gen_ai.request.seed"
STOP_SEQUENCES = "gen_ai.request.stop_sequences"
CHOICE_COUNT = "gen_ai.request.choice.count"
STREAM = "gen_ai.request.stream"
REASONING_LEVEL = "gen_ai.request.reasoning.level"
PREVIOUS_RESPONSE_ID = "gen_ai.request.previous_response.id"
ENCODING_FORMATS = "gen_ai.request.encoding_formats"
DIMENSION_COUNT = "gen_ai.embeddings.dimension.count"

RESPONSE_ID = "gen_ai.response.id"
RESPONSE_MODEL = "gen_ai.response.model"
FINISH_REASONS = "gen_ai.response.finish_reasons"
TIME_TO_FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"  # seconds

INPUT_TOKENS = "gen_ai.usage.input_tokens"  # a total: cached tokens are part of it
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"  # a total: reasoning tokens are part of it
CACHE_READ_TOKENS = "gen_ai.usage.cache_read.input_tokens"
CACHE_CREATION_TOKENS = "gen_ai.usage.cache_creation.input_tokens"  # v1.41
CACHE_WRITE_TOKENS = "gen_ai.usage.cache_write.input_tokens"  # the same, as renamed after v1.41
REASONING_TOKENS = "gen_ai.usage.reasoning.output_tokens"

INPUT_MESSAGES = "gen_ai.input.messages"
OUTPUT_MESSAGES = "gen_ai.output.messages"
SYSTEM_INSTRUCTIONS = "gen_ai.system_instructions"
TOOL_DEFINITIONS = "gen_ai.tool.definitions"

ERROR_TYPE = "error.type"
TOOL_NAME = "gen_ai.tool.name"
TOOL_CALL_ID = "gen_ai.tool.call.id"
TOOL_DESCRIPTION = "gen_ai.tool.description"
TOOL_ARGUMENTS = "gen_ai.tool.call.arguments"
TOOL_RESULT = "gen_ai.tool.call.result"
AGENT_NAME = "gen_ai.agent.name"
RETRIEVAL_QUERY = "gen_ai.retrieval.query.text"
RETRIEVAL_DOCUMENTS = "gen_ai.retrieval.documents"

SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"

REQUEST_ID = "fallom.request_id"  # what the provider's support asks for
RETRIES = "fallom.retries"  # attempts of the client library beyond the first
TOOL_CALLS = "fallom.tool_calls"  # how many calls of tools the answer asks for

KIND = "fallom.kind"  # llm, chain, agent, tool, retrieval
INPUT = "fallom.input"  # what went into the outermost chain or a step
OUTPUT = "fallom.output"  # and what came out
DOCUMENT_COUNT = "fallom.document_count"  # how many a retriever found

# Events within a span.
AGENT_ACTION = "fallom.agent.action"  # an agent chose a tool
AGENT_FINISH = "fallom.agent.finish"
ATTEMPT = "fallom.attempt"  # an HTTP request of the client library, where there was more than one
ATTEMPT_NUMBER = "fallom.attempt.number"  # from 1
FIRST_CHUNK = "fallom.first_chunk"
LAST_CHUNK = "fallom.last_chunk"
