# Builds mhmoe with its CUDA backend and puts it into a slim image that runs it, also under mpirun.
#   docker build -t mhmoe .
#   docker run --gpus all -v "$PWD:/work" mhmoe train configs/tiny/mhmoe_8.json
FROM nvidia/cuda:12.8.1-devel-ubuntu24.04 AS build
RUN apt-get update && apt-get install -y --no-install-recommends \
      g++ cmake ninja-build libcli11-dev nlohmann-json3-dev libspdlog-dev libfmt-dev libdnnl-dev \
      libsentencepiece-dev libsimdjson-dev libxxhash-dev libzstd-dev zlib1g-dev \
    && rm -rf /var/lib/apt/lists/*
COPY . /source
RUN cmake -G Ninja -S /source -B /build -DMHMOE_CUDA=ON -DMHMOE_EMULATED=OFF -DMHMOE_TESTS=OFF && ninja -C /build
# The program's shared libraries, except the C library's own; those of CUDA are in the image it runs in.
RUN mkdir /libraries && ldd /build/mhmoe | awk '/=> \// { print $3 }' \
    | grep -vE '/(libc|libm|libpthread|libdl|librt)\.so' | xargs -I{} cp -L {} /libraries

FROM nvidia/cuda:12.8.1-runtime-ubuntu24.04
RUN apt-get update && apt-get install -y --no-install-recommends openmpi-bin \
    && rm -rf /var/lib/apt/lists/* && useradd --create-home mhmoe
COPY --from=build /libraries /opt/mhmoe/lib
COPY --from=build /build/mhmoe /build/libmhmoe_cuda.so /opt/mhmoe/
ENV LD_LIBRARY_PATH=/opt/mhmoe/lib:$LD_LIBRARY_PATH PATH=/opt/mhmoe:$PATH
USER mhmoe
WORKDIR /work
ENTRYPOINT ["mhmoe"]
