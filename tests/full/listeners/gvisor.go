// A listener made of gVisor's own packages: its wire, its messages. It takes one connection at the
// socket that it is told, and prints a line for each message: its number, its type, its fields.
package main

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	pb "gvisor.dev/gvisor/pkg/sentry/seccheck/points/points_go_proto"
	"gvisor.dev/gvisor/pkg/sentry/seccheck/sinks/remote/wire"
)

var kinds = map[pb.MessageType]proto.Message{
	pb.MessageType_MESSAGE_CONTAINER_START:           &pb.Start{},
	pb.MessageType_MESSAGE_SENTRY_CLONE:              &pb.CloneInfo{},
	pb.MessageType_MESSAGE_SENTRY_EXEC:               &pb.ExecveInfo{},
	pb.MessageType_MESSAGE_SENTRY_EXIT_NOTIFY_PARENT: &pb.ExitNotifyParentInfo{},
	pb.MessageType_MESSAGE_SENTRY_TASK_EXIT:          &pb.TaskExit{},
	pb.MessageType_MESSAGE_SYSCALL_RAW:               &pb.Syscall{},
	pb.MessageType_MESSAGE_SYSCALL_OPEN:              &pb.Open{},
	pb.MessageType_MESSAGE_SYSCALL_CLOSE:             &pb.Close{},
	pb.MessageType_MESSAGE_SYSCALL_READ:              &pb.Read{},
	pb.MessageType_MESSAGE_SYSCALL_CONNECT:           &pb.Connect{},
	pb.MessageType_MESSAGE_SYSCALL_EXECVE:            &pb.Execve{},
	pb.MessageType_MESSAGE_SYSCALL_SOCKET:            &pb.Socket{},
	pb.MessageType_MESSAGE_SYSCALL_CHDIR:             &pb.Chdir{},
	pb.MessageType_MESSAGE_SYSCALL_SETID:             &pb.Setid{},
	pb.MessageType_MESSAGE_SYSCALL_SETRESID:          &pb.Setresid{},
	pb.MessageType_MESSAGE_SYSCALL_PRLIMIT64:         &pb.Prlimit{},
	pb.MessageType_MESSAGE_SYSCALL_PIPE:              &pb.Pipe{},
	pb.MessageType_MESSAGE_SYSCALL_FCNTL:             &pb.Fcntl{},
	pb.MessageType_MESSAGE_SYSCALL_DUP:               &pb.Dup{},
	pb.MessageType_MESSAGE_SYSCALL_SIGNALFD:          &pb.Signalfd{},
	pb.MessageType_MESSAGE_SYSCALL_CHROOT:            &pb.Chroot{},
	pb.MessageType_MESSAGE_SYSCALL_EVENTFD:           &pb.Eventfd{},
	pb.MessageType_MESSAGE_SYSCALL_CLONE:             &pb.Clone{},
	pb.MessageType_MESSAGE_SYSCALL_BIND:              &pb.Bind{},
	pb.MessageType_MESSAGE_SYSCALL_ACCEPT:            &pb.Accept{},
	pb.MessageType_MESSAGE_SYSCALL_TIMERFD_CREATE:    &pb.TimerfdCreate{},
	pb.MessageType_MESSAGE_SYSCALL_TIMERFD_SETTIME:   &pb.TimerfdSetTime{},
	pb.MessageType_MESSAGE_SYSCALL_TIMERFD_GETTIME:   &pb.TimerfdGetTime{},
	pb.MessageType_MESSAGE_SYSCALL_FORK:              &pb.Fork{},
	pb.MessageType_MESSAGE_SYSCALL_INOTIFY_INIT:      &pb.InotifyInit{},
	pb.MessageType_MESSAGE_SYSCALL_INOTIFY_ADD_WATCH: &pb.InotifyAddWatch{},
	pb.MessageType_MESSAGE_SYSCALL_INOTIFY_RM_WATCH:  &pb.InotifyRmWatch{},
	pb.MessageType_MESSAGE_SYSCALL_SOCKETPAIR:        &pb.SocketPair{},
	pb.MessageType_MESSAGE_SYSCALL_WRITE:             &pb.Write{},
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

// strange says whether a message, or one in it, has a field that gVisor does not know.
func strange(message protoreflect.Message) bool {
	found := len(message.GetUnknown()) > 0
	message.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		if field.Message() != nil && !field.IsList() {
			found = found || strange(value.Message())
		}
		return true
	})
	return found
}

func main() {
	listener, err := net.Listen("unixpacket", os.Args[1])
	check(err)
	client, err := listener.Accept()
	check(err)
	buffer := make([]byte, 1<<20)
	size, err := client.Read(buffer)
	check(err)
	hello := pb.Handshake{}
	check(proto.Unmarshal(buffer[:size], &hello))
	if hello.Version != wire.CurrentVersion {
		panic(hello.Version)
	}
	answer, err := proto.Marshal(&pb.Handshake{Version: wire.CurrentVersion})
	check(err)
	_, err = client.Write(answer)
	check(err)
	for {
		size, err = client.Read(buffer)
		if err != nil || size == 0 {
			return
		}
		header := wire.Header{
			HeaderSize:   binary.LittleEndian.Uint16(buffer),
			MessageType:  binary.LittleEndian.Uint16(buffer[2:]),
			DroppedCount: binary.LittleEndian.Uint32(buffer[4:]),
		}
		if header.HeaderSize != wire.HeaderStructSize || header.DroppedCount != 0 {
			panic(fmt.Sprint(header))
		}
		kind := pb.MessageType(header.MessageType)
		known, ok := kinds[kind]
		if !ok {
			panic(fmt.Sprint("no message of gVisor's: ", header.MessageType))
		}
		message := proto.Clone(known)
		check(proto.Unmarshal(buffer[header.HeaderSize:size], message))
		if strange(message.ProtoReflect()) {
			panic(fmt.Sprint("a field that gVisor does not know: ", message))
		}
		text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(message)
		check(err)
		fmt.Println(kind, string(text))
	}
}
