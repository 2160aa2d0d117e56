# Builds mhmoe with its CUDA backend and puts it into an image that runs it, on one GPU or by mpirun on many.
#   docker build -t mhmoe .
#   docker run --gpus all --ipc=host --ulimit memlock=-1 -v "$PWD:/work" mhmoe mpirun -np 8 mhmoe train CONFIG
# Both images are of one distribution, so that libraries of the first are packages of the second.
ARG BUILD_IMAGE=nvidia/cuda:13.0.1-devel-ubuntu24.04
ARG RUN_IMAGE=nvidia/cuda:13.0.1-runtime-ubuntu24.04

FROM ${BUILD_IMAGE} AS build
ENV DEBIAN_FRONTEND=noninteractive
RUN apt-get update && apt-get install -y --no-install-recommends \
      g++ cmake ninja-build libcli11-dev nlohmann-json3-dev libspdlog-dev libfmt-dev libdnnl-dev \
      libsentencepiece-dev libsimdjson-dev libxxhash-dev libzstd-dev zlib1g-dev libopenmpi-dev openmpi-bin \
    && rm -rf /var/lib/apt/lists/*
COPY . /source
RUN cmake -G Ninja -S /source -B /build -DMHMOE_CUDA=ON -DMHMOE_EMULATED=OFF -DMHMOE_TESTS=OFF && ninja -C /build
# The packages of the program's libraries. CUDA's and NCCL come with the image it runs in.
RUN ldd /build/mhmoe | awk '/=> \// { print $3 }' | while read -r library; do \
      dpkg-query -S "*-linux-gnu/$(basename "$(realpath "$library")")" | cut -d: -f1; \
    done | sort -u > /packages.txt

FROM ${RUN_IMAGE}
ENV DEBIAN_FRONTEND=noninteractive
COPY --from=build /packages.txt /packages.txt
RUN apt-get update && xargs apt-get install -y --no-install-recommends openmpi-bin openssh-client python3 \
      python3-matplotlib < /packages.txt \
    && rm -rf /var/lib/apt/lists/* && useradd --create-home mhmoe
# The program finds its modules beside it.
COPY --from=build /build/mhmoe /build/libmhmoe_cuda.so /opt/mhmoe/
COPY configs /opt/mhmoe/configs
COPY scripts /opt/mhmoe/scripts
# Single copies between processes need a permission that containers do not have.
ENV PATH=/opt/mhmoe:/opt/mhmoe/scripts:$PATH OMPI_MCA_btl_vader_single_copy_mechanism=none
USER mhmoe
WORKDIR /work
# docker stop sends SIGTERM: the run saves, given time (docker stop --time 120).
ENTRYPOINT ["/opt/mhmoe/scripts/launch.sh"]
CMD ["mhmoe", "--help"]
