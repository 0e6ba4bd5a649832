module ebpflab/go-hello

go 1.19
