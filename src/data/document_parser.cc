#include <simdjson.h>

#include <algorithm>
#include <array>

#include "core/error.h"
#include "data/corpus.h"

namespace mhmoe::data {
namespace {

constexpr std::array<const char*, 3> kKnownFields = {"text", "raw_content", "content"};  // RedPajama's and its sources'
// A parser keeps memory for the longest line it has seen; longer lines than this are rare and pay for themselves.
constexpr size_t kKeptCapacity = size_t{4} << 20;

int64_t line_of_first_bad_byte(std::string_view text) {
  int64_t number = 1;
  for (size_t begin = 0, end = 0; begin < text.size(); begin = end + 1, ++number) {
    end = std::min(text.find('\n', begin), text.size());
    if (!simdjson::validate_utf8(text.data() + begin, end - begin)) break;
  }
  return number;
}

std::string fields_of(const simdjson::dom::element& json) {
  simdjson::dom::object object;
  if (json.get(object)) return "it is no JSON object";
  std::string names;
  for (const auto field : object) {
    if (names.size() > 200) return fmt::format("its fields are {}, ...", names);
    names += fmt::format("{}{}{}", names.empty() ? "" : ", ", field.key, field.value.is_string() ? "" : " (no string)");
  }
  return names.empty() ? "it has no fields" : fmt::format("its fields are {}", names);
}

}  // namespace

struct DocumentParser::Json {
  simdjson::dom::parser parser;
};

DocumentParser::DocumentParser(std::string field) : field_(std::move(field)), json_(std::make_unique<Json>()) {}
DocumentParser::~DocumentParser() = default;
DocumentParser::DocumentParser(DocumentParser&&) noexcept = default;

std::string_view DocumentParser::parse(RawDocument& document, const std::string& path) {
  if (document.format == CorpusFormat::kJsonLines) return parse_json(document, path);
  if (!simdjson::validate_utf8(document.bytes)) {
    fail(ExitCode::kBadData, "{}:{}: not valid UTF-8; convert the file first", path,
         line_of_first_bad_byte(document.bytes));
  }
  return document.bytes;
}

std::string_view DocumentParser::parse_json(RawDocument& document, const std::string& path) {
  if (json_->parser.capacity() > kKeptCapacity) json_ = std::make_unique<Json>();
  document.bytes.reserve(document.bytes.size() + simdjson::SIMDJSON_PADDING);  // spares the parser a copy
  simdjson::dom::element json;
  if (const auto error = json_->parser.parse(document.bytes).get(json)) {
    fail(ExitCode::kBadData, "{}:{}: not a JSON value on one line: {}", path, document.line,
         simdjson::error_message(error));
  }
  std::string_view text;
  if (!field_.empty()) {
    if (!json[field_].get(text)) return text;
    fail(ExitCode::kBadData, "{}:{}: no string \"{}\"; {}", path, document.line, field_, fields_of(json));
  }
  for (const char* field : kKnownFields) {
    if (!json[field].get(text)) return text;
  }
  fail(
      ExitCode::kBadData,
      "{}:{}: expected an object with a string \"text\", \"raw_content\" or \"content\", but {}; name the text's field "
      "with --text-field",
      path, document.line, fields_of(json));
}

}  // namespace mhmoe::data
