#include "client/inference_client.h"

#include <chrono>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "common/grpc_status.h"
#include "common/status_macros.h"
#include "essor/v1/admin.grpc.pb.h"
#include "essor/v1/inference.grpc.pb.h"
#include "grpcpp/grpcpp.h"

namespace essor::client {
namespace {

// Rows of logits come in pieces of some megabytes.
constexpr int kMessageBytesMax = 64 << 20;
constexpr std::chrono::milliseconds kStopInterval(50);

// Server streams that are read side by side on the calling thread.
template <typename Response>
class StreamSet {
 public:
  using Reader = std::unique_ptr<grpc::ClientAsyncReader<Response>>;
  using Start = std::function<Reader(grpc::ClientContext*, grpc::CompletionQueue*, void* tag)>;

  void Add(const Start& start) {
    auto stream = std::make_unique<Stream>();
    stream->index = streams_.size();
    stream->reader = start(&stream->context, &queue_, stream.get());
    streams_.push_back(std::move(stream));
  }

  // Runs all of them to their ends; one status each. `on_part` returns false to cancel a stream.
  std::vector<absl::Status> Run(const std::function<bool(size_t, const Response&)>& on_part,
                                const StopFn& stop) {
    size_t running = streams_.size();
    bool stopped = false;
    while (running > 0) {
      void* tag = nullptr;
      bool ok = false;
      const auto next =
          queue_.AsyncNext(&tag, &ok, std::chrono::system_clock::now() + kStopInterval);
      if (next == grpc::CompletionQueue::GOT_EVENT &&
          Advance(*static_cast<Stream*>(tag), ok, on_part)) {
        --running;
      }
      if (!stopped && stop && stop()) {
        stopped = true;
        for (const auto& stream : streams_) stream->context.TryCancel();
      }
    }
    queue_.Shutdown();
    std::vector<absl::Status> statuses;
    for (const auto& stream : streams_) {
      const absl::Status status = FromGrpcStatus(stream->status);
      statuses.push_back(stopped && absl::IsCancelled(status)
                             ? absl::CancelledError("stopped by the caller")
                             : status);
    }
    return statuses;
  }

 private:
  struct Stream {
    size_t index = 0;
    grpc::ClientContext context;
    Reader reader;
    Response part;
    grpc::Status status;
    bool started = false;
    bool finishing = false;
  };

  // Handles one completed operation of a stream and begins its next; true when it has ended.
  bool Advance(Stream& stream, bool ok,
               const std::function<bool(size_t, const Response&)>& on_part) {
    if (stream.finishing) return true;
    if (ok && stream.started && !on_part(stream.index, stream.part)) stream.context.TryCancel();
    stream.started = true;
    if (ok) {
      stream.reader->Read(&stream.part, &stream);
    } else {
      stream.finishing = true;
      stream.reader->Finish(&stream.status, &stream);
    }
    return false;
  }

  grpc::CompletionQueue queue_;
  std::vector<std::unique_ptr<Stream>> streams_;
};

class GrpcInferenceClient : public InferenceClient {
 public:
  GrpcInferenceClient(std::string address, const std::shared_ptr<grpc::Channel>& channel)
      : address_(std::move(address)),
        inference_(v1::Inference::NewStub(channel)),
        admin_(v1::Admin::NewStub(channel)) {}

  std::vector<absl::Status> GenerateAll(
      const std::vector<v1::GenerateRequest>& requests,
      const std::function<bool(size_t, const v1::GenerateResponse&)>& on_part,
      const StopFn& stop) override {
    StreamSet<v1::GenerateResponse> streams;
    for (const v1::GenerateRequest& request : requests) {
      streams.Add([&](grpc::ClientContext* context, grpc::CompletionQueue* queue, void* tag) {
        return inference_->AsyncGenerate(context, request, queue, tag);
      });
    }
    std::vector<absl::Status> statuses = streams.Run(on_part, stop);
    for (absl::Status& status : statuses) status = Explain(status);
    return statuses;
  }

  absl::Status Score(const v1::ScoreRequest& request,
                     const std::function<absl::Status(const v1::ScoreResponse&)>& on_part,
                     const StopFn& stop) override {
    StreamSet<v1::ScoreResponse> streams;
    streams.Add([&](grpc::ClientContext* context, grpc::CompletionQueue* queue, void* tag) {
      return inference_->AsyncScore(context, request, queue, tag);
    });
    absl::Status local;
    const std::vector<absl::Status> statuses = streams.Run(
        [&](size_t, const v1::ScoreResponse& part) {
          if (local.ok()) local = on_part(part);
          return local.ok();
        },
        stop);
    return local.ok() ? Explain(statuses.front()) : local;
  }

  absl::StatusOr<v1::ModelInfo> GetModel(absl::Duration timeout) override {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + timeout));
    v1::GetModelResponse response;
    ESSOR_RETURN_IF_ERROR(
        Explain(FromGrpcStatus(inference_->GetModel(&context, v1::GetModelRequest(), &response))));
    return response.model();
  }

  absl::StatusOr<v1::GetClusterResponse> GetCluster(absl::Duration timeout) override {
    grpc::ClientContext context;
    context.set_deadline(absl::ToChronoTime(absl::Now() + timeout));
    v1::GetClusterResponse response;
    ESSOR_RETURN_IF_ERROR(
        Explain(FromGrpcStatus(admin_->GetCluster(&context, v1::GetClusterRequest(), &response))));
    return response;
  }

 private:
  // gRPC's own words for a connection that failed say neither where nor why in a readable way.
  absl::Status Explain(const absl::Status& status) const {
    const std::string message(status.message());
    if (absl::IsUnimplemented(status) && message.empty()) {
      return absl::FailedPreconditionError(absl::StrFormat(
          "%s does not serve essor.v1.Inference: is it the coordinator's gRPC address?", address_));
    }
    if (!absl::IsUnavailable(status)) return status;
    if (absl::StrContains(message, "failed to connect")) {
      return absl::UnavailableError(absl::StrFormat("nobody answers at %s", address_));
    }
    if (absl::StrContains(message, "DNS resolution failed")) {
      return absl::UnavailableError(absl::StrFormat("the host of %s is not known", address_));
    }
    if (message == "Socket closed") {
      return absl::UnavailableError(absl::StrFormat("the connection to %s broke", address_));
    }
    return status;
  }

  const std::string address_;
  const std::unique_ptr<v1::Inference::Stub> inference_;
  const std::unique_ptr<v1::Admin::Stub> admin_;
};

}  // namespace

absl::Status InferenceClient::Generate(
    const v1::GenerateRequest& request,
    const std::function<bool(const v1::GenerateResponse&)>& on_part, const StopFn& stop) {
  return GenerateAll(
             {request}, [&](size_t, const v1::GenerateResponse& part) { return on_part(part); },
             stop)
      .front();
}

std::unique_ptr<InferenceClient> InferenceClient::Connect(const std::string& address) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMessageBytesMax);
  // A proxy set for the web would take even calls to this host.
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  // Whoever waits for a cluster to start asks again soon; gRPC's back-off of seconds would add to
  // every start.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 50);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 500);
  return std::make_unique<GrpcInferenceClient>(
      address, grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments));
}

}  // namespace essor::client
